// NameTable: tensors by name, without a second copy of the names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "moue/safetensors.h"

namespace moue {

/// Open addressing over indices into a list of tensors: 16 to 32 bytes a tensor. The list must not
/// change.
class NameTable {
 public:
  /// Enters every tensor; returns the first whose name is there already, or nullptr.
  const TensorInfo* fill(const std::vector<TensorInfo>& tensors);
  const TensorInfo* find(const std::vector<TensorInfo>& tensors, std::string_view name) const;

 private:
  // The hash beside the index spares most looks at a foreign name.
  struct Slot {
    uint32_t hash = 0;
    uint32_t index_plus_1 = 0;  // 0 is empty
  };
  size_t place(const std::vector<TensorInfo>& tensors, std::string_view name, uint64_t hash) const;
  std::vector<Slot> slots_;  // a power of two, at most half full
};

}  // namespace moue
