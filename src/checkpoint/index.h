// model.safetensors.index.json: which shard holds which tensor.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moue {

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";

struct Index {
  std::vector<std::string> files;                            // sorted, each once
  std::vector<std::pair<std::string, uint32_t>> weight_map;  // tensor, index into files
};

/// Throws Error listing every value of weight_map that is no plain file name.
Index read_index(const std::filesystem::path& file);

/// The text of an index; weight_map is written in the given order.
std::string index_text(const Index& index, uint64_t total_parameters, uint64_t total_size);

/// True for a name that stays inside its directory: no '/', no NUL, neither empty nor "." nor "..".
bool is_plain_name(std::string_view name);

}  // namespace moue
