// The header of a safetensors file, parsed strictly.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/name_table.h"
#include "moue/safetensors.h"

namespace moue {

constexpr uint64_t kMostHeaderBytes = 100'000'000;

struct Header {
  std::vector<TensorInfo> tensors;  // in order of offset; offsets count from the start of the file
  std::map<std::string, std::string> metadata;
  NameTable names;
};

/// Checks every rule of the format. `text` is the header, `data_offset` and `data_bytes` the rest
/// of the file. Throws Error "[safetensors] FILE: ...".
Header parse_header(std::string text, uint64_t data_offset, uint64_t data_bytes,
                    const std::string& file);

/// Bytes of a tensor; nothing where a product overflows or an element border falls inside a byte.
std::optional<uint64_t> tensor_bytes(Dtype dtype, std::span<const int64_t> shape);

}  // namespace moue
