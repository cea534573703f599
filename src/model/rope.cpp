// Rotary positions: tables of angles for every kind of scaling, and the rotation itself.
#include "model/rope.h"

#include <cmath>
#include <numbers>

#include "kernels/rope.h"
#include "model/ops.h"
#include "model/torch.h"

namespace moue {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// x is [B, length, heads, A] with unit stride inside a token's heads; tokens may lie further apart.
kernels::Rope rope_args(const at::Tensor& x, const at::Tensor& y, const at::Tensor& cosine,
                        const at::Tensor& sine, int64_t begin, bool interleaved, bool inverse) {
  return {element_of(x),
          x.data_ptr(),
          x.stride(1),
          y.data_ptr(),
          cosine.data_ptr<float>(),
          sine.data_ptr<float>(),
          x.size(0),
          x.size(1),
          x.size(2),
          x.size(3),
          begin,
          2 * cosine.size(1),
          interleaved,
          inverse};
}

bool fits_rope(const at::Tensor& x) {
  return x.stride(3) == 1 && (x.size(2) == 1 || x.stride(2) == x.size(3)) &&
         (x.size(0) == 1 || x.stride(0) == x.size(1) * x.stride(1));
}

struct RopeFunction : Function<RopeFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_in, const at::Tensor& cosine,
                            const at::Tensor& sine, int64_t begin, bool interleaved) {
    const at::Tensor x = fits_rope(x_in) ? x_in : x_in.contiguous();
    at::Tensor y =
        at::empty({x.size(0), x.size(2), x.size(1), x.size(3)}, x.options().requires_grad(false));
    kernels::rope(rope_args(x, y, cosine, sine, begin, interleaved, false), where_of(x));
    ctx->save_for_backward({cosine, sine});
    ctx->saved_data["begin"] = begin;
    ctx->saved_data["interleaved"] = interleaved;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor dx = at::empty({dy.size(0), dy.size(2), dy.size(1), dy.size(3)}, dy.options());
    kernels::rope(rope_args(dx, dy, saved[0], saved[1], ctx->saved_data["begin"].toInt(),
                            ctx->saved_data["interleaved"].toBool(), true),
                  where_of(dy));
    return {dx, {}, {}, {}, {}};
  }
};

// In float32 and in the order of operations in which the original models make their tables.

// theta^(2i / width) [width / 2]
at::Tensor wavelengths(const RopeSpec& rope) {
  const at::Tensor exponent =
      at::arange(0, rope.width, 2, at::kFloat) / static_cast<double>(rope.width);
  return at::pow(at::Scalar(rope.theta), exponent);
}

// The pair of channels that turns `rotations` times within the original length. (YaRN, Peng et al.
// 2023, arXiv 2309.00071)
double pair_of(const RopeSpec& rope, double rotations) {
  const double turns =
      static_cast<double>(rope.original_length) / (rotations * 2 * std::numbers::pi);
  return static_cast<double>(rope.width) * std::log(turns) / (2 * std::log(rope.theta));
}

at::Tensor yarn_frequencies(const RopeSpec& rope) {
  double low = pair_of(rope, rope.beta_fast), high = pair_of(rope, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(rope.width - 1));
  if (low == high) high += 0.001;
  const at::Tensor ramp =
      ((at::arange(rope.width / 2, at::kFloat) - low) / (high - low)).clamp(0, 1);
  const at::Tensor kept = 1 - ramp, length = wavelengths(rope);
  return 1.0 / (rope.factor * length) * (1 - kept) + 1.0 / length * kept;
}

at::Tensor long_frequencies(const RopeSpec& rope, bool is_long) {
  const std::vector<double>& factors = is_long ? rope.long_factors : rope.short_factors;
  return 1.0 / (at::tensor(factors, at::kFloat) * wavelengths(rope));
}

at::Tensor llama3_frequencies(const RopeSpec& rope) {
  const double original = static_cast<double>(rope.original_length);
  const at::Tensor plain = 1.0 / wavelengths(rope);
  const at::Tensor turn = 2 * std::numbers::pi / plain;
  const at::Tensor is_low = turn > original / rope.low_frequency;
  const at::Tensor is_high = turn < original / rope.high_frequency;
  const at::Tensor smooth =
      (original / turn - rope.low_frequency) / (rope.high_frequency - rope.low_frequency);
  const at::Tensor between = (1 - smooth) * plain / rope.factor + smooth * plain;
  return at::where(is_low, plain / rope.factor, at::where(is_high, plain, between));
}

at::Tensor frequencies(const RopeSpec& rope, bool is_long) {
  switch (rope.kind) {
    case RopeKind::Default:
      return 1.0 / wavelengths(rope);
    case RopeKind::Linear:
      return 1.0 / wavelengths(rope) / rope.factor;
    case RopeKind::Yarn:
      return yarn_frequencies(rope);
    case RopeKind::Long:
      return long_frequencies(rope, is_long);
    case RopeKind::Llama3:
      return llama3_frequencies(rope);
  }
  TORCH_CHECK(false, "unknown kind of rope");
}

}  // namespace

Positions make_positions(const RopeSpec& rope, int64_t length, const at::TensorOptions& device) {
  const bool is_long = rope.kind == RopeKind::Long && length > rope.original_length;
  const at::Tensor angle =
      at::arange(length, at::kFloat).unsqueeze(1) * frequencies(rope, is_long).unsqueeze(0);
  const double factor = is_long ? rope.long_attention_factor : rope.attention_factor;
  return {(angle.cos() * factor).to(device.device()), (angle.sin() * factor).to(device.device()),
          rope.interleaved};
}

at::Tensor rope(const at::Tensor& x, const Positions& positions, int64_t begin) {
  return RopeFunction::apply(x, positions.cosine, positions.sine, begin, positions.interleaved);
}

}  // namespace moue
