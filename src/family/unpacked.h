// What becomes of packed tensors when they are written plain.
#pragma once

#include "moue/family.h"

namespace moue {

/// What a packed slice's tensor is when it is written unpacked, in bfloat16: its name and shape in
/// the form its family has besides, and where the slice lies in it (Slice::tensor is null).
struct Unpacked {
  std::string name;
  std::vector<int64_t> shape;
  Slice slice;
};
Unpacked unpacked(const Slice& slice);
/// Under which name a tensor with this claim (row may be null) is then written; nothing for scales.
std::optional<std::string> unpacked_name(const TensorInfo& tensor, const Claim& claim);
Config without_packing(const Config& config);  ///< of a directory whose tensors are all Plain

}  // namespace moue
