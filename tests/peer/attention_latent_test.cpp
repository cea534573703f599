// Latent attention beside whole matrices in float64: with and without a query rank, pairs and
// halves, biases.
#include "support/torch_test.h"
//
#include "model/attention_latent.h"
#include "support/tolerances.h"
#include "support/torch_blocks.h"

using namespace moue;
using namespace moue::test;

namespace {

constexpr int64_t kBatch = 2, kLength = 11, kWidth = 24;
constexpr double kEps = 1e-6, kTheta = 10000;

struct Case {
  std::string name;
  bool ranked = true, interleaved = true, biased = false;
  int64_t value_width = 6;
  int64_t window = 0;
};

const std::vector<Case> kCases{{"pairs"},
                               {"halves", true, false},
                               {"no query rank", false},
                               {"biases, wide values", true, true, true, 14},
                               {"window", true, true, false, 6, 4}};

AttentionSpec spec_of(const Case& c) {
  AttentionSpec a;
  a.kinds = {AttentionKind::Latent};
  a.heads = a.kv_heads = 3;
  a.scale = 0.35;
  if (c.window > 0) a.window = {c.window};
  a.latent = {c.ranked ? 10 : 0, 14, 8, 4, c.value_width};
  return a;
}

// x, query_down, query_down_bias, query_norm, query_up, down, down_bias, norm, up, output,
// output_bias
std::vector<at::Tensor> inputs(const Case& c) {
  const AttentionSpec a = spec_of(c);
  const auto& [Q, R, N, P, U] = a.latent;
  const int64_t H = a.heads, D = kWidth;
  const auto maybe = [](bool wanted, std::vector<int64_t> shape, uint64_t seed) {
    return wanted ? random_tensor(std::move(shape), seed, 0.3) : at::Tensor();
  };
  return {random_tensor({kBatch * kLength, D}, 1),
          maybe(c.ranked, {Q, D}, 2),
          maybe(c.ranked && c.biased, {Q}, 3),
          c.ranked ? 1 + random_tensor({Q}, 4, 0.2) : at::Tensor(),
          random_tensor({H * (N + P), c.ranked ? Q : D}, 5, 0.3),
          random_tensor({R + P, D}, 6, 0.3),
          maybe(c.biased, {R + P}, 7),
          1 + random_tensor({R}, 8, 0.2),
          random_tensor({H * (N + U), R}, 9, 0.3),
          random_tensor({D, H * U}, 10, 0.3),
          maybe(c.biased, {D}, 11)};
}

BlockFunction ours(const Case& c) {
  return [c](const std::vector<at::Tensor>& in) {
    RopeSpec rope;
    rope.theta = kTheta;
    rope.width = 4;
    rope.interleaved = c.interleaved;
    return attention_latent(
        in[0], kBatch, spec_of(c), 0, kEps, make_positions(rope, kLength, at::kCPU),
        {in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8], in[9], in[10]});
  };
}

at::Tensor affine(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor y = at::matmul(x, weight.t());
  return bias.defined() ? y + bias : y;
}

// Head by head: keys and values as they would be without the low rank.
BlockFunction plain(const Case& c) {
  return [c](const std::vector<at::Tensor>& in) {
    const AttentionSpec a = spec_of(c);
    const auto& [Q, R, N, P, U] = a.latent;
    at::Tensor wide = in[0];
    if (c.ranked) wide = plain_rms(affine(in[0], in[1], in[2]), in[3], kEps);
    const at::Tensor q = affine(wide, in[4], {});
    const at::Tensor narrow = affine(in[0], in[5], in[6]);
    const at::Tensor kv = affine(plain_rms(narrow.slice(1, 0, R), in[7], kEps), in[8], {});
    const at::Tensor key = narrow.slice(1, R).reshape({kBatch, kLength, 1, P});
    std::vector<at::Tensor> heads;
    for (int64_t h = 0; h < a.heads; ++h) {
      const at::Tensor query = q.slice(1, h * (N + P), (h + 1) * (N + P));
      const at::Tensor mine = kv.slice(1, h * (N + U), (h + 1) * (N + U));
      const at::Tensor k = at::cat({mine.slice(1, 0, N).reshape({kBatch, kLength, 1, N}), key}, 3);
      const auto turn = [&](const at::Tensor& x) {
        return plain_rope(x, kTheta, N, P, c.interleaved);
      };
      heads.push_back(
          plain_attention(turn(query.reshape({kBatch, kLength, 1, N + P})), turn(k),
                          mine.slice(1, N).reshape({kBatch, kLength, 1, U}).transpose(1, 2),
                          a.scale, c.window, {}));
    }
    return affine(at::cat(heads, 1), in[9], in[10]);
  };
}

}  // namespace

TEST_CASE("latent attention agrees with whole matrices", "[peer][model]") {
  for (const Case& c : kCases) {
    INFO(c.name);
    const BlockErrors errors = compare_blocks(ours(c), plain(c), inputs(c));
    CHECK(errors.output <= tolerance::kBlock);
    CHECK(errors.worst_gradient() <= tolerance::kBlockGradient);
    const BlockErrors narrow = compare_blocks(ours(c), plain(c), inputs(c), at::kBFloat16);
    CHECK(narrow.output <= tolerance::kBlockBFloat16);
    CHECK(narrow.worst_gradient() <= tolerance::kBlockBFloat16);
  }
}

TEST_CASE("latent attention shows every weight and the pairs", "[peer][model]") {
  for (const Case& c : kCases) {
    INFO(c.name);
    for (size_t i = 1; i < inputs(c).size(); ++i) {
      if (!inputs(c)[i].defined()) continue;
      const BlockFunction changed = [&](std::vector<at::Tensor> in) {
        in[i] = in[i].flip(0);
        return ours(c)(in);
      };
      CHECK(compare_blocks(changed, plain(c), inputs(c)).output > tolerance::kVisibleBlock);
    }
    Case other = c;
    other.interleaved = !c.interleaved;
    CHECK(compare_blocks(ours(other), plain(c), inputs(c)).output > tolerance::kVisibleBlock);
  }
}
