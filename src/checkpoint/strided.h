// Reading tensors whose elements do not lie in a row: transposed, permuted, or parts of others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "moue/safetensors.h"

namespace moue {

using ReadAt = std::function<void(uint64_t offset, std::span<std::byte> out)>;

/// True where the strides are those of a row-major tensor.
bool is_row_major(std::span<const int64_t> shape, std::span<const int64_t> strides);

/// How many elements from the first to the last, both counted; 0 for an empty tensor, nothing where
/// a number is negative or overflows.
std::optional<uint64_t> reach(std::span<const int64_t> shape, std::span<const int64_t> strides);

/// Fills `out` from byte `from` of a tensor that lies strided from `offset` on, elements of `width`
/// bytes (1, 2, 4, 8). Reads what lies together at once; takes a megabyte.
void read_strided(const Strided& strided, uint64_t offset, uint64_t width, uint64_t from,
                  std::span<std::byte> out, const ReadAt& read_at);

}  // namespace moue
