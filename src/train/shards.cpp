// Tensors written as a row of safetensors files of bounded size.
#include "train/shards.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "moue/error.h"

namespace moue {
namespace {

std::vector<std::span<const Stored>> split(std::span<const Stored> tensors, uint64_t most) {
  std::vector<std::span<const Stored>> parts;
  size_t first = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (i > first && bytes + tensors[i].bytes() > most) {
      parts.push_back(tensors.subspan(first, i - first));
      first = i;
      bytes = 0;
    }
    bytes += tensors[i].bytes();
  }
  if (first < tensors.size()) parts.push_back(tensors.subspan(first));
  return parts;
}

}  // namespace

uint64_t Stored::bytes() const {
  uint64_t elements = 1;
  for (const int64_t size : shape) elements *= static_cast<uint64_t>(size);
  return elements * static_cast<uint64_t>(dtype_bits(dtype)) / 8;
}

void write_tensors(const std::filesystem::path& directory, const std::string& file,
                   std::span<const Stored> tensors, Written& written) {
  std::vector<at::Tensor> alive;
  std::vector<TensorView> views;
  for (const Stored& stored : tensors) {
    alive.push_back(stored.make());
    const auto* data = static_cast<const std::byte*>(alive.back().const_data_ptr());
    views.push_back({stored.name, stored.dtype, stored.shape, {data, alive.back().nbytes()}});
    written.weight_map[stored.name] = file;
    written.bytes += stored.bytes();
    written.parameters += stored.bytes() * 8 / static_cast<uint64_t>(dtype_bits(stored.dtype));
  }
  const FileDigest digest = write_safetensors(directory / file, views);
  written.files.push_back({file, digest.bytes, digest.sha256});
}

void write_shards(const std::filesystem::path& directory, const std::string& stem,
                  std::span<const Stored> tensors, uint64_t most, Written& written) {
  const std::vector<std::span<const Stored>> parts = split(tensors, most);
  for (size_t i = 0; i < parts.size(); ++i) {
    write_tensors(directory,
                  fmt::format("{}-{:05}-of-{:05}.safetensors", stem, i + 1, parts.size()), parts[i],
                  written);
  }
}

at::Tensor host_tensor(const at::Tensor& tensor, at::ScalarType type) {
  return tensor.detach().to(at::kCPU, type).contiguous();
}

}  // namespace moue
