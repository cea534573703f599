// Families as tests walk them: example configs, the tensors that rows ask for, released tensor
// lists.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "moue/checkpoint.h"
#include "moue/family.h"

namespace moue::test {

const Family& family_named(std::string_view name);

/// The family's example with some keys replaced; null removes them.
Config example_of(const Family& family, const std::string& patch = "{}");
Config example_of(std::string_view family, const std::string& patch = "{}");

/// Every tensor that the rows of one of its forms ask for, without files.
std::vector<TensorInfo> tensors_of(const Family& family, const Config& config, size_t form = 0,
                                   bool with_optional = false);

/// "layers.{0-31}.x" as 32 tensors, any number of braces.
void expand(const std::string& pattern, const std::vector<int64_t>& shape,
            std::vector<TensorInfo>& out, Dtype dtype = Dtype::BF16);
void drop(std::vector<TensorInfo>& tensors, const std::string& name);
TensorInfo& named(std::vector<TensorInfo>& tensors, const std::string& name);

/// tests/golden/tensors/NAME.txt.
struct Released {
  Config config;
  std::vector<TensorInfo> tensors;
};
Released released(const std::string& name);

/// What claim() says; "" where it finds no fault.
std::string claim_message(const Config& config, std::vector<TensorInfo> tensors,
                          const Family& family);

}  // namespace moue::test
