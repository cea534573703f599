// Lightning attention by blocks beside its recurrence, token by token, in float64.
#include "support/torch_test.h"
//
#include "model/attention_linear.h"
#include "support/tolerances.h"
#include "support/torch_blocks.h"
#include "support/torch_compare.h"

using namespace moue;
using namespace moue::test;

namespace {

constexpr int64_t kBatch = 2, kWidth = 24, kHeads = 6, kHeadWidth = 8;
constexpr double kEps = 1e-6;

AttentionSpec spec_of(int64_t block) {
  AttentionSpec a;
  a.kinds = {AttentionKind::Linear};
  a.heads = kHeads;
  a.head_width = kHeadWidth;
  a.block = block;
  return a;
}

// x, input, norm, gate, output
std::vector<at::Tensor> inputs(int64_t length) {
  const int64_t all = kHeads * kHeadWidth;
  return {random_tensor({kBatch * length, kWidth}, 1), random_tensor({3 * all, kWidth}, 2, 0.3),
          1 + random_tensor({all}, 3, 0.2), random_tensor({all, kWidth}, 4, 0.3),
          random_tensor({kWidth, all}, 5, 0.3)};
}

BlockFunction ours(int64_t block, int64_t layer) {
  return [=](const std::vector<at::Tensor>& in) {
    return attention_linear(in[0], kBatch, spec_of(block), decay_rates(kHeads, layer, 4), kEps,
                            {in[1], in[2], in[3], in[4]});
  };
}

// Rates by their definition: 2^(-8 (h + 1) / H), less in later layers.
double rate(int64_t head, int64_t layer) {
  const double slope = std::exp2(-8.0 * static_cast<double>(head + 1) / kHeads);
  return slope * (1 - static_cast<double>(layer) / (3 + 1e-5) + 1e-5);
}

// state = exp(-rate) state + k v^T; out = q state
BlockFunction recurrence(int64_t layer) {
  return [=](const std::vector<at::Tensor>& in) {
    const int64_t length = in[0].size(0) / kBatch, A = kHeadWidth;
    const at::Tensor raw = at::matmul(in[0], in[1].t());
    const at::Tensor qkv = (raw * at::sigmoid(raw)).reshape({kBatch, length, kHeads, 3, A});
    std::vector<at::Tensor> sequences;
    for (int64_t b = 0; b < kBatch; ++b) {
      std::vector<at::Tensor> heads;
      for (int64_t h = 0; h < kHeads; ++h) {
        at::Tensor state = at::zeros({A, A}, at::kDouble);
        std::vector<at::Tensor> rows;
        for (int64_t t = 0; t < length; ++t) {
          const at::Tensor token = qkv.select(0, b).select(0, t).select(0, h);
          state = state * std::exp(-rate(h, layer)) + at::outer(token[1], token[2]);
          rows.push_back(at::matmul(token[0], state));
        }
        heads.push_back(at::stack(rows));
      }
      sequences.push_back(at::cat(heads, 1));
    }
    const at::Tensor out = plain_rms(at::cat(sequences), in[2], kEps);
    return at::matmul(at::sigmoid(at::matmul(in[0], in[3].t())) * out, in[4].t());
  };
}

}  // namespace

TEST_CASE("lightning attention agrees with its recurrence", "[peer][model]") {
  // Shorter than a block, one block, whole blocks, a part of a block behind whole ones, blocks
  // of 1.
  for (const auto& [length, block] : std::vector<std::pair<int64_t, int64_t>>{
           {5, 8}, {8, 8}, {16, 8}, {23, 8}, {23, 256}, {6, 1}}) {
    for (int64_t layer : {0, 2}) {
      INFO("length " << length << " block " << block << " layer " << layer);
      const BlockErrors errors =
          compare_blocks(ours(block, layer), recurrence(layer), inputs(length));
      CHECK(errors.output <= tolerance::kBlock);
      CHECK(errors.worst_gradient() <= tolerance::kBlockGradient);
    }
  }
  const BlockErrors narrow = compare_blocks(ours(8, 0), recurrence(0), inputs(23), at::kBFloat16);
  CHECK(narrow.output <= tolerance::kBlockBFloat16);
  CHECK(narrow.worst_gradient() <= tolerance::kBlockBFloat16);
}

TEST_CASE("lightning attention shows another layer's decay and every weight", "[peer][model]") {
  CHECK(compare_blocks(ours(8, 1), recurrence(0), inputs(23)).output > tolerance::kVisibleBlock);
  for (size_t i = 1; i < 5; ++i) {
    const BlockFunction changed = [&](std::vector<at::Tensor> in) {
      in[i] = in[i].flip(0);
      return ours(8, 0)(in);
    };
    CHECK(compare_blocks(changed, recurrence(0), inputs(23)).output > tolerance::kVisibleBlock);
  }
}

TEST_CASE("a token is not reached from later ones", "[peer][model]") {
  std::vector<at::Tensor> in = inputs(23);
  for (at::Tensor& x : in) x = x.to(at::kFloat);
  const at::Tensor before = ours(8, 0)(in);
  at::Tensor changed = in[0].clone();
  changed.view({kBatch, 23, kWidth}).select(1, 17).add_(1);
  in[0] = changed;
  const at::Tensor moved = (ours(8, 0)(in) - before).abs().sum(1).view({kBatch, 23}).sum(0);
  CHECK(moved.narrow(0, 0, 17).max().item<double>() == 0);
  CHECK(moved.narrow(0, 17, 6).min().item<double>() > 0);
}
