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
  const int64_t width = order_.length + 1;
  Batch batch{at::empty({order_.batch, width}, at::kLong), {}, order_.batch * order_.length};
  if (tokens_.has_mask()) batch.mask_BT = at::empty({order_.batch, order_.length}, at::kBool);
  for (int64_t row = 0; row < order_.batch; ++row) {
    const uint64_t position = order_.position(step, row);
    int64_t* first = batch.rows_BT1.data_ptr<int64_t>() + row * width;
    tokens_.read<int64_t>(position, {first, static_cast<size_t>(width)});
    if (!batch.mask_BT.defined()) continue;
    // A mask byte belongs to its token; the targets of a row start one token after its inputs.
    bool* mask = batch.mask_BT.data_ptr<bool>() + row * order_.length;
    static_assert(sizeof(bool) == 1);
    tokens_.read_mask(position + 1,
                      {reinterpret_cast<uint8_t*>(mask), static_cast<size_t>(order_.length)});
  }
  if (batch.mask_BT.defined()) batch.num_targets = batch.mask_BT.sum().item<int64_t>();
  return batch;
}

}  // namespace moue
