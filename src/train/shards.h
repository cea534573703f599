// Tensors written as a row of safetensors files of bounded size.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"
#include "moue/safetensors.h"

namespace moue {

/// A tensor to be written. `make` is called when its file's turn comes: a contiguous CPU tensor
/// with these bytes.
struct Stored {
  std::string name;
  Dtype dtype = Dtype::F32;
  std::vector<int64_t> shape;
  std::function<at::Tensor()> make;

  uint64_t bytes() const;
};

/// What was written into a directory so far.
struct Written {
  std::vector<ManifestFile> files;
  std::map<std::string, std::string> weight_map;  ///< tensor to file
  uint64_t parameters = 0;
  uint64_t bytes = 0;  ///< of tensors
};

inline constexpr uint64_t kShardBytes = 5'000'000'000;

/// Writes one file of this name.
void write_tensors(const std::filesystem::path& directory, const std::string& file,
                   std::span<const Stored> tensors, Written& written);
/// Writes "STEM-00001-of-0000N.safetensors", in the given order, each at most `most` bytes (or one
/// tensor).
void write_shards(const std::filesystem::path& directory, const std::string& stem,
                  std::span<const Stored> tensors, uint64_t most, Written& written);
/// A contiguous CPU copy (or the tensor itself) in this element type.
at::Tensor host_tensor(const at::Tensor& tensor, at::ScalarType type);

}  // namespace moue
