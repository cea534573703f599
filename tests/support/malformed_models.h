// The catalogue of model directories, configs, indices and recipes that must be refused.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace moue::test {

struct ModelCase {
  std::string name;
  /// Breaks a good model, a copy of tests/golden/families/mixtral.
  std::function<void(const std::filesystem::path& model)> change;
};
std::vector<ModelCase> malformed_models();

struct TextCase {
  std::string name, text;
};
std::vector<TextCase> malformed_configs(std::string_view good);  ///< of a Mixtral
std::vector<TextCase> malformed_indices();
std::vector<TextCase> malformed_recipes();

}  // namespace moue::test
