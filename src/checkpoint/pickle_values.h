// What a pickle of tensors builds: values of 16 bytes, and lists of what they point to.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/pickle.h"
#include "checkpoint/pickle_names.h"

namespace moue::pickle {

enum class Kind : uint8_t {
  None,
  Bool,
  Int,
  Float,
  Text,
  Tuple,
  List,
  Dict,
  OrderedDict,
  Global,
  Storage,
  Tensor,
};

inline constexpr std::string_view name_of(Kind kind) {
  constexpr std::array<std::string_view, 12> kNames = {
      "None",   "a bool", "an int",         "a float",  "a text",    "a tuple",
      "a list", "a dict", "an OrderedDict", "a global", "a storage", "a tensor"};
  return kNames[static_cast<size_t>(kind)];
}

// 16 bytes, whatever it is: text lies in the pickle, what holds others in a list of its kind.
struct Value {
  Kind kind = Kind::None;
  uint32_t count = 0;  // of a text's bytes, a tuple's members
  int64_t data = 0;    // number; where a text or tuple begins; which dict, global, storage, tensor
};

struct Item {
  int64_t dict;
  Value key, value;
};

struct Storage {
  std::string_view key;
  const PickleGlobal* type;
  int64_t elements;
};

struct Tensor {
  Storage storage;
  Dtype dtype;
  int64_t offset;
  Value shape, strides;
};

struct Heap {
  std::string_view bytes;      // of the pickle
  std::vector<Value> members;  // of all tuples, one behind the other
  std::vector<Item> items;     // of all dicts, in the order they were set
  std::vector<Storage> storages;
  std::vector<Tensor> tensors;

  std::string_view text(Value value) const {
    return bytes.substr(static_cast<size_t>(value.data), value.count);
  }
  std::span<const Value> members_of(Value tuple) const {
    return std::span(members).subspan(static_cast<size_t>(tuple.data), tuple.count);
  }
};

/// The tensors that the dict `top` names. Throws Error where it names anything else.
std::vector<PickledTensor> tensors_of(const Heap& heap, Value top, const std::string& file);

}  // namespace moue::pickle
