// LooseModel: a small model directory taken apart in memory, changed, and written again as if
// nothing had happened.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/pool.h"

namespace moue::test {

struct LooseTensor {
  std::string name;
  Dtype dtype = Dtype::F32;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
  std::string file;
};

class LooseModel {
 public:
  explicit LooseModel(const std::filesystem::path& directory);

  LooseTensor& at(const std::string& name);
  LooseTensor& at(Role role, int64_t layer = -1, int64_t expert = -1);
  void erase(const std::string& name);
  /// Where the matrix lies, in a tensor of its own or in a stack.
  Slice slice(Role role, int64_t layer, int64_t expert) const {
    return claims_.slice(role, layer, expert).value();
  }
  void add(LooseTensor tensor) { tensors.push_back(std::move(tensor)); }
  std::span<float> floats(const std::string& name);  ///< of an F32 tensor

  /// Writes shards, index, config, other files, and a manifest that fits them. The folder must not
  /// exist.
  void write(const std::filesystem::path& to) const;

  std::vector<LooseTensor> tensors;
  nlohmann::ordered_json config;
  Pool pool;                             ///< as it was read
  std::vector<std::string> other_files;  ///< copied by write()

 private:
  Checkpoint source_;
  Claims claims_;
};

}  // namespace moue::test
