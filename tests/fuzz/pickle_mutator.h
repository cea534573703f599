// Changes a pickle as opcodes, a zip file as entries.
#pragma once

#include <string>

#include "fuzz/json_mutator.h"

namespace moue::fuzz {

std::string mutate_pickle(const std::string& pickle, Random& random);

/// One entry's bytes, name, flags or sizes, or the order of entries; sums are put right mostly.
std::string mutate_zip(const std::string& zip, Random& random);

}  // namespace moue::fuzz
