// A matrix of a checkpoint, read a few rows at a time.
#pragma once

#include "moue/checkpoint.h"
#include "moue/family.h"

#include <functional>
#include <span>

namespace moue {

/// Calls visit(first row, rows, values) for blocks of about 16 MB, in order. A matrix stored
/// transposed is one block.
void for_each_block(const Checkpoint& source, const Slice& matrix,
                    const std::function<void(int64_t, int64_t, std::span<const float>)>& visit);

/// All of a small one.
std::vector<float> read_all(const Checkpoint& source, const Slice& matrix);

}  // namespace moue
