// Tensors that train differently: patterns of the recipe against the names of tensors on disk.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "moue/model.h"
#include "moue/train.h"

namespace moue {

/// `*` stands for any letters, `?` for one.
bool matches(std::string_view pattern, std::string_view name);

/// True for tensors that `freeze` or the last matching group holds still.
bool is_frozen(const TrainOptions& options, std::string_view tensor);

/// A piece of a parameter under one group.
struct GroupPiece {
  ElementRange range;
  double lr_multiplier = 1;
  double weight_decay = -1;  ///< negative = the run's
};

/// How one parameter trains; frozen elements are in no piece.
struct ParameterGroup {
  std::vector<GroupPiece> pieces;
  int64_t start_step = 0;
};

/// One entry per parameter. Throws Error for patterns that match no tensor, and for parameters that
/// would start at two different steps.
std::vector<ParameterGroup> groups_of(const std::vector<Parameter>& parameters,
                                      const TrainOptions& options);

/// The groups as text, to compare a resumed run with its beginning.
std::string groups_text(const TrainOptions& options);

}  // namespace moue
