// The header of a safetensors file as text: checked, padded so that tensor data starts aligned.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "moue/safetensors.h"

namespace moue {

/// What the header says of a tensor. Names and shapes are borrowed.
struct Described {
  std::string_view name;
  Dtype dtype = Dtype::F32;
  std::span<const int64_t> shape;
  uint64_t bytes = 0;
};

/// "__metadata__" of every file: {"format": "pt"}.
const std::map<std::string, std::string>& plain_metadata();

/// The file's first bytes: eight of length, the header, spaces up to a multiple of `alignment`.
/// Data lies behind it in the given order. Throws Error naming `file` for names or sizes that the
/// format cannot hold.
std::string header_text(std::span<const Described> tensors,
                        const std::map<std::string, std::string>& metadata, uint64_t alignment,
                        const std::string& file);

/// What a header without tensors takes at most, before padding; and what a tensor adds whose data
/// begins at `begin`.
uint64_t empty_header_bytes(const std::map<std::string, std::string>& metadata);
uint64_t header_entry_bytes(const Described& tensor, uint64_t begin);

}  // namespace moue
