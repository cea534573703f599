// A matrix of a checkpoint, read a few rows at a time.
#include "plan/blocks.h"

#include <algorithm>
#include <vector>

namespace moue {

namespace {

constexpr int64_t kBlock = int64_t{4} << 20;  // elements

}  // namespace

void for_each_block(const Checkpoint& source, const Slice& matrix,
                    const std::function<void(int64_t, int64_t, std::span<const float>)>& visit) {
  // Rows of a transposed matrix lie all over the tensor: a few would cost as much as all.
  const bool by_rows = matrix.column_stride == 1;
  const int64_t most = by_rows ? std::max<int64_t>(1, kBlock / matrix.columns) : matrix.rows;
  std::vector<float> values;
  for (int64_t first = 0; first < matrix.rows; first += most) {
    Slice part = matrix;
    part.rows = std::min(most, matrix.rows - first);
    part.offset += first * matrix.row_stride;
    values.resize(static_cast<size_t>(part.rows * part.columns));
    read_slice(source, part, values);
    visit(first, part.rows, values);
  }
}

std::vector<float> read_all(const Checkpoint& source, const Slice& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.columns));
  read_slice(source, matrix, values);
  return values;
}

}  // namespace moue
