// Bytes of two checkpoints side by side, also where one has them in another float type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "moue/checkpoint.h"

namespace moue {

/// Fills `out` with bytes from `from` on.
using ReadBytes = std::function<void(uint64_t from, std::span<std::byte> out)>;

/// The first byte in which two ranges of equal length differ; both are read in multiples of
/// `granule`.
std::optional<uint64_t> first_difference(uint64_t bytes, uint64_t granule, const ReadBytes& a,
                                         const ReadBytes& b);

/// A reader of what `read` gives in `from`, rounded to `to` as convert rounds it.
ReadBytes cast_reader(ReadBytes read, Dtype from, Dtype to);

/// Whether convert makes the one type of the other, and whether that loses bits.
bool can_be_cast(Dtype from, Dtype to);
bool loses_bits(Dtype from, Dtype to);

/// What was cast on the way from one checkpoint to the other.
struct Casts {
  int64_t tensors = 0;
  bool lossy = false;
  std::string types;  ///< "BF16"
};
Casts casts_of(const Checkpoint& original, const Checkpoint& result);

/// A tied head that only the original stores: it repeats the embedding, bit for bit.
bool is_repeated_head(const Checkpoint& original, const TensorInfo& tensor);

}  // namespace moue
