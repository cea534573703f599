// Grouped attention beside whole matrices in float64: QK norms, limits, biases, windows, sinks.
#include "support/torch_test.h"
//
#include "model/attention_grouped.h"
#include "support/tolerances.h"
#include "support/torch_blocks.h"

using namespace moue;
using namespace moue::test;

namespace {

constexpr int64_t kBatch = 2, kLength = 13, kWidth = 24, kLayer = 1;
constexpr double kEps = 1e-5, kTheta = 10000;

struct Case {
  std::string name;
  AttentionSpec spec;
  RopeSpec rope;
};

AttentionSpec base() {
  AttentionSpec a;
  a.heads = 6;
  a.kv_heads = 2;
  a.head_width = 8;
  a.scale = 0.3;
  return a;
}

RopeSpec whole_rope(int64_t width) {
  RopeSpec rope;
  rope.theta = kTheta;
  rope.width = width;
  return rope;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  const auto add = [&](const std::string& name, auto&& change) {
    all.push_back({name, base(), whole_rope(8)});
    change(all.back());
  };
  add("plain", [](Case&) {});
  add("one head of keys", [](Case& c) { c.spec.kv_heads = 1; });
  add("norm per head, partial rope", [](Case& c) {
    c.spec.qk_norm = QkNorm::PerHead;
    c.rope.width = 4;
  });
  add("norm of the whole, limits", [](Case& c) {
    c.spec.qk_norm = QkNorm::Whole;
    c.spec.clip = 0.7;
  });
  add("limits, biases", [](Case& c) {
    c.spec.clip = 0.7;
    c.spec.bias = c.spec.output_bias = true;
  });
  add("pairs", [](Case& c) { c.rope.interleaved = true; });
  add("window", [](Case& c) { c.spec.window = {0, 4}; });
  add("sinks, biases", [](Case& c) { c.spec.sinks = c.spec.bias = c.spec.output_bias = true; });
  add("sinks, window", [](Case& c) {
    c.spec.sinks = true;
    c.spec.window = {0, 4};
  });
  return all;
}

// x, qkv, qkv_bias, output, output_bias, query_norm, key_norm, sinks
std::vector<at::Tensor> inputs(const AttentionSpec& a) {
  const int64_t H = a.heads, G = a.kv_heads, A = a.head_width, D = kWidth;
  const bool whole = a.qk_norm == QkNorm::Whole, normed = a.qk_norm != QkNorm::None;
  const at::Tensor none;
  return {random_tensor({kBatch * kLength, D}, 1),
          random_tensor({(H + 2 * G) * A, D}, 2, 0.3),
          a.bias ? random_tensor({(H + 2 * G) * A}, 3, 0.3) : none,
          random_tensor({D, H * A}, 4, 0.3),
          a.output_bias ? random_tensor({D}, 5, 0.3) : none,
          normed ? 1 + random_tensor({whole ? H * A : A}, 6, 0.2) : none,
          normed ? 1 + random_tensor({whole ? G * A : A}, 7, 0.2) : none,
          a.sinks ? random_tensor({H}, 8) : none};
}

BlockFunction ours(const Case& c) {
  return [c](const std::vector<at::Tensor>& in) {
    return attention_grouped(in[0], kBatch, c.spec, kLayer, kEps,
                             make_positions(c.rope, kLength, at::kCPU),
                             {in[1], in[2], in[3], in[4], in[5], in[6], in[7]});
  };
}

BlockFunction plain(const Case& c) {
  return [c](const std::vector<at::Tensor>& in) {
    const AttentionSpec& a = c.spec;
    const int64_t H = a.heads, G = a.kv_heads, A = a.head_width;
    at::Tensor qkv = at::matmul(in[0], in[1].t());
    if (in[2].defined()) qkv = qkv + in[2];
    at::Tensor q = qkv.slice(1, 0, H * A), k = qkv.slice(1, H * A, (H + G) * A),
               v = qkv.slice(1, (H + G) * A);
    if (a.qk_norm == QkNorm::Whole) {
      q = plain_rms(q, in[5], kEps);
      k = plain_rms(k, in[6], kEps);
    }
    if (a.clip > 0) {
      q = at::minimum(at::maximum(q, at::tensor(-a.clip)), at::tensor(a.clip));
      k = at::minimum(at::maximum(k, at::tensor(-a.clip)), at::tensor(a.clip));
      v = at::minimum(at::maximum(v, at::tensor(-a.clip)), at::tensor(a.clip));
    }
    q = q.reshape({kBatch, kLength, H, A});
    k = k.reshape({kBatch, kLength, G, A});
    if (a.qk_norm == QkNorm::PerHead) {
      q = plain_rms(q, in[5], kEps);
      k = plain_rms(k, in[6], kEps);
    }
    const auto turn = [&](const at::Tensor& x) {
      return plain_rope(x, kTheta, 0, c.rope.width, c.rope.interleaved);
    };
    const at::Tensor heads =
        plain_attention(turn(q), turn(k), v.reshape({kBatch, kLength, G, A}).transpose(1, 2),
                        a.scale, a.window.empty() ? 0 : a.window[kLayer], in[7]);
    const at::Tensor out = at::matmul(heads, in[3].t());
    return in[4].defined() ? out + in[4] : out;
  };
}

}  // namespace

TEST_CASE("grouped attention agrees with whole matrices", "[peer][model]") {
  for (const Case& c : cases()) {
    INFO(c.name);
    const BlockErrors errors = compare_blocks(ours(c), plain(c), inputs(c.spec));
    CHECK(errors.output <= tolerance::kBlock);
    CHECK(errors.worst_gradient() <= tolerance::kBlockGradient);
    const BlockErrors narrow = compare_blocks(ours(c), plain(c), inputs(c.spec), at::kBFloat16);
    CHECK(narrow.output <= tolerance::kBlockBFloat16);
    // The gradient jumps at a limit, and a rounding decides on which side a number stands.
    if (c.spec.clip == 0) CHECK(narrow.worst_gradient() <= tolerance::kBlockBFloat16);
  }
}

TEST_CASE("grouped attention shows every part left out", "[peer][model]") {
  const double visible = tolerance::kVisibleBlock;
  const auto error = [](const Case& seen, const Case& wanted, std::vector<at::Tensor> in) {
    return compare_blocks(ours(seen), plain(wanted), in).output;
  };
  for (const Case& c : cases()) {
    INFO(c.name);
    Case other = c;
    other.rope.theta = 500;
    CHECK(error(other, c, inputs(c.spec)) > visible);
    other = c;
    other.rope.interleaved = !c.rope.interleaved;
    CHECK(error(other, c, inputs(c.spec)) > visible);
    other = c;
    other.spec.scale *= 1.1;
    CHECK(error(other, c, inputs(c.spec)) > visible);
    if (c.spec.clip > 0) {
      other = c;
      other.spec.clip = 0;
      CHECK(error(other, c, inputs(c.spec)) > visible);
    }
    if (!c.spec.window.empty()) {
      other = c;
      other.spec.window = {0, 5};
      CHECK(error(other, c, inputs(c.spec)) > visible);
    }
    for (size_t i : {2, 4, 5, 6, 7}) {  // a weight changed for one side
      if (!inputs(c.spec)[i].defined()) continue;
      const BlockFunction mine = ours(c);
      const BlockFunction changed = [&](std::vector<at::Tensor> in) {
        in[i] = in[i].flip(0);
        return mine(in);
      };
      CHECK(compare_blocks(changed, plain(c), inputs(c.spec)).output > visible);
    }
  }
}
