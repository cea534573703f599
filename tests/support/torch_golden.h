// The recorded numbers of tests/golden/moue, as the model's tests read them.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "moue/safetensors.h"

namespace moue::test {

std::vector<std::string> golden_topologies();
std::filesystem::path golden_moue(const std::string& topology);

/// Rows for loss(): every position is run, as in the reference; the last has no target.
struct GoldenRows {
  at::Tensor rows, mask;
  explicit GoldenRows(const at::Tensor& tokens);
  double scale() const;
};

/// Our gradient for a name of the reference: its experts are fused, its pool tensors have short
/// names.
at::Tensor golden_gradient(const std::map<std::string, at::Tensor>& ours, std::string name);

/// Checks all recorded tensors under a prefix; returns how many there were.
int compare_gradients(const SafetensorsFile& expected, const std::string& prefix,
                      const std::map<std::string, at::Tensor>& ours);

}  // namespace moue::test
