// NameTable: tensors by name, without a second copy of the names.
#include "checkpoint/name_table.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace moue {

// The slot that holds the name, or the empty one where it belongs.
size_t NameTable::place(const std::vector<TensorInfo>& tensors, std::string_view name,
                        uint64_t hash) const {
  const size_t mask = slots_.size() - 1;
  const auto high = static_cast<uint32_t>(hash >> 32);
  size_t at = hash & mask;
  for (; slots_[at].index_plus_1 != 0; at = (at + 1) & mask) {
    if (slots_[at].hash == high && tensors[slots_[at].index_plus_1 - 1].name == name) break;
  }
  return at;
}

const TensorInfo* NameTable::fill(const std::vector<TensorInfo>& tensors) {
  slots_.assign(std::bit_ceil(std::max<size_t>(8, tensors.size() * 2)), {});
  for (uint32_t i = 0; i < tensors.size(); ++i) {
    const uint64_t hash = std::hash<std::string_view>{}(tensors[i].name);
    Slot& slot = slots_[place(tensors, tensors[i].name, hash)];
    if (slot.index_plus_1 != 0) return &tensors[i];
    slot = {static_cast<uint32_t>(hash >> 32), i + 1};
  }
  return nullptr;
}

const TensorInfo* NameTable::find(const std::vector<TensorInfo>& tensors,
                                  std::string_view name) const {
  if (slots_.empty()) return nullptr;
  const uint64_t hash = std::hash<std::string_view>{}(name);
  const Slot& slot = slots_[place(tensors, name, hash)];
  return slot.index_plus_1 == 0 ? nullptr : &tensors[slot.index_plus_1 - 1];
}

}  // namespace moue
