// Mutants of a converted directory: what can go wrong in a conversion, each done on purpose, so
// that gates are tried.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "support/loose_model.h"

namespace moue::test {

struct Mutant {
  std::string name;      ///< "swap two experts of a layer"
  std::string found_by;  ///< the check of `moue validate` that finds it without a forward pass
  std::function<void(LooseModel&)> change;
};

/// All mutants, for a closed conversion with foreign slots in every layer and at least two MoE
/// layers.
std::vector<Mutant> mutants();

/// Writes the mutant of `converted` as a real copy, index and manifest rewritten to match. `to`
/// must not exist.
void write_mutant(const Mutant& mutant, const std::filesystem::path& converted,
                  const std::filesystem::path& to);

}  // namespace moue::test
