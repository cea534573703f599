// Attention by experts beside a loop over tokens and their choices in float64.
#include "support/torch_test.h"
//
#include "model/attention_experts.h"
#include "support/tolerances.h"
#include "support/torch_blocks.h"

using namespace moue;
using namespace moue::test;

namespace {

constexpr int64_t kBatch = 2, kLength = 9, kWidth = 24, kExperts = 5, kHeads = 3, kHeadWidth = 8;
constexpr double kTheta = 10000, kScale = 0.3;

AttentionSpec spec() {
  AttentionSpec a;
  a.kinds = {AttentionKind::Experts};
  a.kv_heads = kHeads;
  a.head_width = kHeadWidth;
  a.scale = kScale;
  return a;
}

// x, router, input, output, bias, key_value
std::vector<at::Tensor> inputs() {
  const int64_t all = kHeads * kHeadWidth;
  return {random_tensor({kBatch * kLength, kWidth}, 1),
          random_tensor({kExperts, kWidth}, 2, 0.3),
          random_tensor({kExperts, all, kWidth}, 3, 0.3),
          random_tensor({kExperts, kWidth, all}, 4, 0.3),
          random_tensor({kWidth}, 5, 0.3),
          random_tensor({2 * all, kWidth}, 6, 0.3)};
}

BlockFunction ours(int64_t chosen) {
  return [=](const std::vector<at::Tensor>& in) {
    RopeSpec rope;
    rope.theta = kTheta;
    rope.width = kHeadWidth;
    return attention_experts(in[0], kBatch, spec(), 0, chosen,
                             make_positions(rope, kLength, at::kCPU),
                             {in[1], in[2], in[3], in[4], in[5]});
  };
}

at::Tensor heads_of(const at::Tensor& x) {
  return x.reshape({kBatch, kLength, kHeads, kHeadWidth});
}

at::Tensor turn(const at::Tensor& x) {
  return plain_rope(heads_of(x), kTheta, 0, kHeadWidth, false);
}

// Rank by rank: each is an attention whose projections differ from token to token.
BlockFunction plain(int64_t chosen) {
  return [=](const std::vector<at::Tensor>& in) {
    const int64_t T = kBatch * kLength, all = kHeads * kHeadWidth;
    const at::Tensor logits = at::matmul(in[0], in[1].t());
    const auto [best, choice] = logits.sort(std::optional(true), 1, true);
    const at::Tensor gate = best.narrow(1, 0, chosen).softmax(1);
    const at::Tensor kv = at::matmul(in[0], in[5].t());
    const at::Tensor k = turn(kv.slice(1, 0, all)), v = heads_of(kv.slice(1, all)).transpose(1, 2);
    at::Tensor sum = in[4].expand({T, kWidth});
    for (int64_t rank = 0; rank < chosen; ++rank) {
      std::vector<at::Tensor> queries, answers;
      const auto expert = [&](int64_t t) { return choice[t][rank].item<int64_t>(); };
      for (int64_t t = 0; t < T; ++t) queries.push_back(at::mv(in[2][expert(t)], in[0][t]));
      const at::Tensor heads = plain_attention(turn(at::stack(queries)), k, v, kScale, 0, {});
      for (int64_t t = 0; t < T; ++t)
        answers.push_back(gate[t][rank] * at::mv(in[3][expert(t)], heads[t]));
      sum = sum + at::stack(answers);
    }
    return sum;
  };
}

}  // namespace

TEST_CASE("attention by experts agrees with a loop over tokens", "[peer][model]") {
  for (int64_t chosen : {1, 2, 5}) {
    INFO("K " << chosen);
    const BlockErrors errors = compare_blocks(ours(chosen), plain(chosen), inputs());
    CHECK(errors.output <= tolerance::kBlock);
    CHECK(errors.worst_gradient() <= tolerance::kBlockGradient);
  }
}

// bfloat16 logits may tie or swap where float64 ones do not, so here every expert is chosen.
TEST_CASE("attention by experts in bfloat16", "[peer][model]") {
  const BlockErrors narrow = compare_blocks(ours(5), plain(5), inputs(), at::kBFloat16);
  CHECK(narrow.output <= tolerance::kBlockBFloat16);
  CHECK(narrow.worst_gradient() <= tolerance::kBlockBFloat16);
}

TEST_CASE("attention by experts shows every weight and K", "[peer][model]") {
  CHECK(compare_blocks(ours(2), plain(3), inputs()).output > tolerance::kVisibleBlock);
  for (size_t i = 1; i < 6; ++i) {
    const BlockFunction changed = [&](std::vector<at::Tensor> in) {
      in[i] = in[i].flip(0);
      return ours(2)(in);
    };
    CHECK(compare_blocks(changed, plain(2), inputs()).output > tolerance::kVisibleBlock);
  }
}
