// The table of families, for its own tests.
#pragma once

#include "moue/family.h"

#include <vector>

namespace moue {

/// Throws std::logic_error where two families claim one architecture or one lacks a part.
void check_families(const std::vector<Family>& families);

/// family_of in a table other than ours.
const Family& family_in(const std::vector<Family>& families, const Config& config);

}  // namespace moue
