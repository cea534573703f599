// The globals that a pickle of tensors may name, and the names of opcodes for messages.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "moue/safetensors.h"

namespace moue {

struct PickleGlobal {
  enum class Use : uint8_t {
    OrderedDict,
    Tensor,         ///< its element type is the storage's
    TensorOfDtype,  ///< its element type is an argument
    Parameter,
    Storage,
    StorageOfBytes,
    Dtype,
  };
  std::string_view module, name;
  Use use;
  moue::Dtype dtype = moue::Dtype::U8;  ///< of a Storage or Dtype
  bool is_storage() const { return use == Use::Storage || use == Use::StorageOfBytes; }
};

std::span<const PickleGlobal> all_globals();
const PickleGlobal* find_global(std::string_view module, std::string_view name);

/// "EXT1 (0x82)".
std::string opcode_text(uint8_t opcode);

}  // namespace moue
