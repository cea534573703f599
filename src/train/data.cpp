// Rows of training and held-out tokens as tensors.
#include "train/data.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/sha256.h"
#include "model/windows.h"
#include "moue/error.h"
#include "moue/log.h"
#include "moue/report.h"

namespace moue {
namespace {

std::vector<double> weights_of(const std::vector<TrainSource>& sources) {
  std::vector<double> weights;
  for (const TrainSource& source : sources) weights.push_back(source.weight);
  return weights;
}

std::optional<DocumentRows> document_rows(const TokenFile& tokens, const TrainOptions& options) {
  if (options.documents == "packed") return std::nullopt;
  const std::vector<uint64_t> bounds = tokens.documents();
  if (bounds.empty())
    fail("train",
         "documents is '{}', but {} knows no document boundaries, wanted a Megatron index; "
         "scripts/tokenize writes one",
         options.documents, tokens.path().string());
  DocumentRows rows(bounds, options.length);
  if (rows.size() == 0)
    fail("train", "{} has no document of two tokens or more", tokens.path().string());
  return rows;
}

std::string identity_of(const TokenFile& tokens) {
  std::vector<int64_t> first(std::min<uint64_t>(tokens.size(), 1 << 16));
  tokens.read<int64_t>(0, first);
  return fmt::format("{} tokens that begin with {:.12}", tokens.size(),
                     sha256_of(std::as_bytes(std::span(first))));
}

}  // namespace

std::vector<TrainSource> sources_of(const TrainOptions& options) {
  if (!options.data.empty()) return options.data;
  return {{options.tokens, 1, options.token_type}};
}

TrainData::TrainData(const TrainOptions& options, int64_t vocabulary)
    : length_(options.length), batch_(options.batch), turns_(weights_of(sources_of(options))) {
  for (const TrainSource& source : sources_of(options)) {
    const std::string& type = source.token_type.empty() ? options.token_type : source.token_type;
    TokenFile tokens = open_tokens(source.tokens, type, length_, vocabulary);
    std::optional<DocumentRows> documents = document_rows(tokens, options);
    const int64_t rows =
        documents ? static_cast<int64_t>(documents->size()) : tokens.num_windows(length_);
    const DataOrder order{
        order_of(options.order), static_cast<uint64_t>(options.seed), rows, length_, batch_,
        sources_.size()};
    masked_ = masked_ || tokens.has_mask() || documents;
    sources_.push_back({std::move(tokens), order, std::move(documents)});
  }
}

// A mask byte belongs to its token; the targets of a row start one token after its inputs.
void TrainData::fill(const Turns::Turn& turn, int64_t* row, uint8_t* mask) const {
  const Source& source = sources_[turn.source];
  const uint64_t window = source.order.window(turn.number);
  DocumentRows::Row place{window * static_cast<uint64_t>(length_), length_};
  if (source.documents) place = source.documents->row(window);
  // Behind a document's end a row holds what follows in the file, which no counted target sees.
  const auto there =
      static_cast<size_t>(std::min<uint64_t>(source.tokens.size() - place.position, length_ + 1));
  source.tokens.read<int64_t>(place.position, {row, there});
  std::fill(row + there, row + length_ + 1, row[there - 1]);
  const auto targets = static_cast<size_t>(place.targets);
  source.tokens.read_mask(place.position + 1, {mask, targets});
  std::fill(mask + targets, mask + length_, uint8_t{0});
}

Batch TrainData::batch(int64_t step) const {
  Batch batch{at::empty({batch_, length_ + 1}, at::kLong), {}, batch_ * length_};
  const at::Tensor mask = at::empty({batch_, length_}, at::kByte);
  for (int64_t row = 0; row < batch_; ++row) {
    fill(turns_.at(static_cast<uint64_t>(step * batch_ + row)),
         batch.rows_BT1.data_ptr<int64_t>() + row * (length_ + 1),
         mask.data_ptr<uint8_t>() + row * length_);
  }
  if (masked_) {
    batch.mask_BT = mask.ne(0);
    batch.num_targets = batch.mask_BT.sum().item<int64_t>();
  }
  return batch;
}

double TrainData::epochs(int64_t step) const {
  double rows = 0;
  for (const Source& source : sources_) rows += static_cast<double>(source.order.windows);
  return static_cast<double>(step) * static_cast<double>(batch_) / rows;
}

at::Tensor TrainData::first_windows(int64_t most) const {
  int64_t there = 0;
  for (const Source& source : sources_) there += source.tokens.num_windows(length_);
  const int64_t count = std::clamp<int64_t>(most, 1, there);
  at::Tensor windows = at::empty({count, length_ + 1}, at::kLong);
  int64_t filled = 0;
  for (uint64_t row = 0; filled < count; ++row) {
    const Turns::Turn turn = turns_.at(row);
    const TokenFile& tokens = sources_[turn.source].tokens;
    if (turn.number >= static_cast<uint64_t>(tokens.num_windows(length_))) continue;
    tokens.read<int64_t>(turn.number * static_cast<uint64_t>(length_),
                         {windows[filled++].data_ptr<int64_t>(), static_cast<size_t>(length_ + 1)});
  }
  return windows;
}

std::string TrainData::identity() const {
  if (sources_.size() == 1) return identity_of(sources_[0].tokens);
  std::vector<std::string> texts;
  for (size_t i = 0; i < sources_.size(); ++i)
    texts.push_back(fmt::format("{:.4f} of {}", turns_.share(i), identity_of(sources_[i].tokens)));
  return fmt::format("{}", fmt::join(texts, "; "));
}

void TrainData::describe(int64_t steps) const {
  for (size_t i = 0; i < sources_.size(); ++i) {
    const Source& source = sources_[i];
    const double rows = turns_.share(i) * static_cast<double>(steps) * static_cast<double>(batch_);
    const double passes = rows / static_cast<double>(source.order.windows);
    std::string how = "rows run on across documents";
    if (source.documents) {
      const double positions =
          static_cast<double>(source.documents->size()) * static_cast<double>(length_);
      how = fmt::format("each row of one of {} documents alone, {:.1f} % of the positions count",
                        source.documents->documents(),
                        100 * static_cast<double>(source.documents->targets()) / positions);
    }
    log_line("train", "{}: {:.1f} % of the rows, {} of them there are, {:.2f} passes; {}{}",
             source.tokens.path().string(), 100 * turns_.share(i),
             count_text(static_cast<double>(source.order.windows)), passes, how,
             source.tokens.has_mask() ? "; its mask says which targets count" : "");
  }
}

}  // namespace moue
