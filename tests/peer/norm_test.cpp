// Norms of the model beside their definitions in float64, whole and in two halves.
#include "support/torch_test.h"
//
#include "model/norm.h"
#include "support/tolerances.h"
#include "support/torch_blocks.h"
#include "support/torch_compare.h"

using namespace moue;
using namespace moue::test;

namespace {

struct Case {
  std::string name;
  NormSpec spec;
};

std::vector<Case> cases() {
  NormSpec rms, float32_gain, layer, layer_bias;
  float32_gain.gain_in_float32 = true;
  layer.kind = layer_bias.kind = NormKind::Layer;
  layer_bias.bias = true;
  return {{"rms", rms}, {"gain in float32", float32_gain}, {"layer", layer}, {"bias", layer_bias}};
}

// x, gain, bias; the rows' mean is far from 0.
std::vector<at::Tensor> inputs(const NormSpec& spec) {
  return {1 + random_tensor({7, 40}, 1, 2), 1 + random_tensor({40}, 2, 0.3),
          spec.bias ? random_tensor({40}, 3) : at::Tensor()};
}

BlockFunction whole(const NormSpec& spec) {
  return [spec](const std::vector<at::Tensor>& in) { return norm(in[0], spec, {in[1], in[2]}); };
}

BlockFunction halves(const NormSpec& spec) {
  return [spec](const std::vector<at::Tensor>& in) {
    return apply_gain(normalise(in[0], spec), {in[1], in[2]}, in[0].scalar_type());
  };
}

BlockFunction plain(const NormSpec& spec) {
  return [spec](const std::vector<at::Tensor>& in) {
    at::Tensor x = in[0];
    if (spec.kind == NormKind::Layer) x = x - x.mean(-1, true);
    const at::Tensor y = plain_rms(x, in[1], spec.eps);
    return in[2].defined() ? y + in[2] : y;
  };
}

}  // namespace

TEST_CASE("norms agree with their definitions", "[peer][model]") {
  for (const Case& c : cases()) {
    for (const BlockFunction& ours : {whole(c.spec), halves(c.spec)}) {
      INFO(c.name);
      const BlockErrors errors = compare_blocks(ours, plain(c.spec), inputs(c.spec));
      CHECK(errors.output <= tolerance::kBlock);
      CHECK(errors.worst_gradient() <= tolerance::kBlockGradient);
      const BlockErrors narrow = compare_blocks(ours, plain(c.spec), inputs(c.spec), at::kBFloat16);
      CHECK(narrow.output <= tolerance::kBlockBFloat16);
      CHECK(narrow.worst_gradient() <= tolerance::kBlockBFloat16);
    }
  }
}

TEST_CASE("norms show each other", "[peer][model]") {
  for (const Case& c : cases()) {
    NormSpec other = c.spec;
    other.kind = c.spec.kind == NormKind::Rms ? NormKind::Layer : NormKind::Rms;
    INFO(c.name);
    CHECK(compare_blocks(halves(other), plain(c.spec), inputs(c.spec)).output >
          tolerance::kVisibleBlock);
    other = c.spec;
    other.eps = 0.1;
    CHECK(compare_blocks(whole(other), plain(c.spec), inputs(c.spec)).output >
          tolerance::kVisibleBlock);
  }
}

// In bfloat16: rounded before and after the gain, or after it alone.
TEST_CASE("the gain stands before or after the rounding", "[peer][model]") {
  const at::Tensor x = random_tensor({50, 40}, 1).to(at::kBFloat16),
                   gain = (1 + random_tensor({40}, 2, 0.3)).to(at::kBFloat16);
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor xhat = wide * (wide.square().mean(-1, true) + 1e-5).rsqrt();
  const at::Tensor twice = xhat.to(at::kBFloat16) * gain;
  const at::Tensor once = (xhat * gain.to(at::kFloat)).to(at::kBFloat16);
  NormSpec before, after;
  before.gain_in_float32 = true;
  const auto equal = [](const at::Tensor& a, const at::Tensor& b) {
    return a.eq(b).to(at::kDouble).mean().item<double>();
  };
  // All but the few whose xhat itself is on another side of a rounding.
  CHECK(equal(norm(x, after, {gain, {}}), twice) > 0.99);
  CHECK(equal(norm(x, before, {gain, {}}), once) > 0.99);
  CHECK(equal(norm(x, before, {gain, {}}), twice) < 0.9);
  CHECK(equal(apply_gain(normalise(x, before), {gain, {}}, at::kBFloat16), once) > 0.99);
  CHECK(equal(apply_gain(normalise(x, after), {gain, {}}, at::kBFloat16), twice) > 0.99);
  CHECK(normalise(x, before).scalar_type() == at::kFloat);
  CHECK(normalise(x, after).scalar_type() == at::kBFloat16);
}
