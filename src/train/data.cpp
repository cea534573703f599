// Rows of training and held-out tokens as tensors.
#include "train/data.h"

#include <ATen/ATen.h>

#include "model/windows.h"

namespace moue {

TrainData::TrainData(const TrainOptions& options, int64_t vocabulary)
    : tokens_(open_tokens(options.tokens, options.token_type, options.length, vocabulary)),
      order_{order_of(options.order), static_cast<uint64_t>(options.seed),
             tokens_.num_windows(options.length), options.length, options.batch} {}

Batch TrainData::batch(int64_t step) const {
  const int64_t rows = order_.batch, length = order_.length;
  Batch batch{at::empty({rows, length + 1}, at::kLong), {}, rows * length};
  const at::Tensor mask = at::ones({rows, length}, at::kByte);
  for (int64_t row = 0; row < rows; ++row) {
    const uint64_t position = order_.position(step, row);
    tokens_.read<int64_t>(position, {batch.rows_BT1.data_ptr<int64_t>() + row * (length + 1),
                                     static_cast<size_t>(length + 1)});
    // A mask byte belongs to its token; the targets of a row start one token after its inputs.
    if (tokens_.has_mask())
      tokens_.read_mask(position + 1,
                        {mask.data_ptr<uint8_t>() + row * length, static_cast<size_t>(length)});
  }
  if (tokens_.has_mask()) {
    batch.mask_BT = mask.ne(0);
    batch.num_targets = batch.mask_BT.sum().item<int64_t>();
  }
  return batch;
}

}  // namespace moue
