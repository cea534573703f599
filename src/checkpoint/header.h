// The header of a safetensors file: strict parse, and the text a writer puts there.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moue/safetensors.h"

namespace moue {

constexpr uint64_t kMostHeaderBytes = 100'000'000;

/// Finds tensors by name: open addressing over their indices, 4 to 8 bytes a tensor.
class NameTable {
 public:
  /// Adds tensors[index]; false where its name is there already.
  bool insert(const std::vector<TensorInfo>& tensors, uint32_t index);
  const TensorInfo* find(const std::vector<TensorInfo>& tensors, std::string_view name) const;

 private:
  void grow(const std::vector<TensorInfo>& tensors);
  std::vector<uint32_t> slots_;  // index + 1; 0 is empty; the size is a power of two
  size_t used_ = 0;
};

struct Header {
  std::vector<TensorInfo> tensors;  // in order of offset; offsets count from the start of the file
  std::map<std::string, std::string> metadata;
  NameTable names;
};

/// Checks every rule of the format. `text` is the header, `data_offset` and `data_bytes` the rest
/// of the file. Throws Error "[safetensors] FILE: ...".
Header parse_header(std::string_view text, uint64_t data_offset, uint64_t data_bytes,
                    const std::string& file);

/// Bytes of a tensor; nothing where a product overflows or an element border falls inside a byte.
std::optional<uint64_t> tensor_bytes(Dtype dtype, std::span<const int64_t> shape);

/// Length and header of a file with these tensors, padded with spaces so that data starts at a
/// multiple of 64.
std::string header_text(std::span<const TensorView> tensors,
                        const std::map<std::string, std::string>& metadata,
                        const std::string& file);

}  // namespace moue
