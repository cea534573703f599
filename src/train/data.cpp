// Rows of training and held-out tokens as tensors.
#include "train/data.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "moue/error.h"

namespace moue {

TokenFile open_tokens(const std::filesystem::path& file, const std::string& token_type,
                      int64_t length, int64_t vocabulary) {
  TokenFile tokens(file, token_type);
  if (tokens.num_windows(length) < 1) {
    fail("train", "{} holds {} tokens, wanted at least {} (length + 1); lower --length",
         file.string(), tokens.size(), length + 1);
  }
  tokens.check_vocabulary(vocabulary);
  return tokens;
}

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

at::Tensor windows_of(const TokenFile& tokens, int64_t length, int64_t most) {
  int64_t windows = tokens.num_windows(length);
  if (most > 0) windows = std::min(windows, most);
  at::Tensor rows = at::empty({windows, length + 1}, at::kLong);
  for (int64_t w = 0; w < windows; ++w) {
    tokens.read<int64_t>(
        static_cast<uint64_t>(w * length),
        {rows.data_ptr<int64_t>() + w * (length + 1), static_cast<size_t>(length + 1)});
  }
  return rows;
}

}  // namespace moue
