// Tensors of files and of models, compared.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "moue/model.h"
#include "moue/safetensors.h"

namespace moue::test {

/// The directories of tests/golden/families, sorted.
std::vector<std::filesystem::path> golden_families();

/// A tensor of a file: int64 stays, all else becomes float64.
at::Tensor read_tensor(const SafetensorsFile& file, const std::string& name);

/// Largest difference over the largest absolute value of `wanted`; where `wanted` is all zero, 0 if
/// `seen` is too, else infinity. Shapes must agree.
double relative_error(const at::Tensor& seen, const at::Tensor& wanted);

/// Equal as floats: +0 and -0 are, NaN is not. Shapes and dtypes must agree.
bool same_numbers(const at::Tensor& a, const at::Tensor& b);

std::unique_ptr<Model> open_model(const std::filesystem::path& directory,
                                  const ModelOptions& options = {});

/// Logits without gradients: [B, length, V].
at::Tensor logits_of(Model& model, const at::Tensor& tokens_BT);

/// The gradient of every tensor on disk, by its name.
std::map<std::string, at::Tensor> gradients(Model& model);

}  // namespace moue::test
