// What becomes of packed tensors when they are written plain.
#include "family/unpacked.h"

#include "moue/safetensors.h"

#include <nlohmann/json.hpp>

namespace moue {

namespace {

constexpr int64_t kGroup = 32;  // elements of MXFP4 in the last two dimensions

// NAME of NAME_blocks.
std::string without_suffix(const std::string& name) { return name.substr(0, name.rfind('_')); }

}  // namespace

Unpacked unpacked(const Slice& slice) {
  Unpacked result{slice.tensor->name, slice.tensor->shape, slice};
  result.slice.tensor = result.slice.scale = nullptr;
  result.slice.packing = Packing::Plain;
  if (slice.packing != Packing::Mxfp4) return result;
  // NAME_blocks [E, out, in / 32, 16] becomes NAME [E, in, out].
  const std::vector<int64_t>& shape = slice.tensor->shape;
  const int64_t out = shape[1], in = shape[2] * kGroup, row = slice.offset / in;
  result.name = without_suffix(result.name);
  result.shape = {shape[0], in, out};
  result.slice.offset = row / out * in * out + row % out;
  result.slice.row_stride = slice.row_stride / in;
  result.slice.column_stride = out;
  return result;
}

std::optional<std::string> unpacked_name(const TensorInfo& tensor, const Claim& claim) {
  if (claim.row == nullptr) return tensor.name;
  if (claim.row->role == Role::Scale) return std::nullopt;
  return claim.row->packing == Packing::Mxfp4 ? without_suffix(tensor.name) : tensor.name;
}

Config without_packing(const Config& config) {
  Config::Json json = config.json();
  json.erase("quantization_config");
  return Config(std::move(json), config.origin());
}

}  // namespace moue
