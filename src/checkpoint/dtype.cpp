// The element types of the format: names, sizes, shapes in messages.
#include "moue/safetensors.h"

#include <fmt/format.h>

#include <array>

namespace moue {
namespace {

struct Entry {
  std::string_view name;
  int bits;
};

// In the order of the enumeration.
constexpr std::array<Entry, 22> kTable{{
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64},
}};
static_assert(kTable.size() == static_cast<size_t>(Dtype::U64) + 1);

}  // namespace

std::string_view dtype_name(Dtype dtype) { return kTable[static_cast<size_t>(dtype)].name; }

std::optional<Dtype> dtype_of(std::string_view name) {
  for (size_t i = 0; i < kTable.size(); ++i) {
    if (kTable[i].name == name) return static_cast<Dtype>(i);
  }
  return std::nullopt;
}

int dtype_bits(Dtype dtype) { return kTable[static_cast<size_t>(dtype)].bits; }

std::string shape_text(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace moue
