// The tensors that mode expand adds: what they are called, and where their numbers come from.
#pragma once

#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/pool.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace moue {

/// A tensor of a new expert: its donor's in the source's dtype, [out, in]; BF16 where that is
/// quantised.
struct NewTensor {
  std::string name;
  Dtype dtype = Dtype::F32;
  std::vector<int64_t> shape;
  Home donor;
  Slice from;
  uint64_t row_bytes() const;  ///< of one index of the first dimension
  uint64_t bytes() const { return row_bytes() * static_cast<uint64_t>(shape[0]); }
};

/// A type that weights have where they are not quantised.
bool holds_weights(Dtype dtype);

/// In the order in which they are written: by expert, gate, up, down, biases. None in reuse.
std::vector<NewTensor> new_tensors(const Claims& source, const Pool& pool, const ModelSpec& spec);

/// The bytes of rows [first, first + count).
void read_rows(const Checkpoint& source, const NewTensor& tensor, int64_t first, int64_t count,
               std::span<std::byte> out);

}  // namespace moue
