// Lightning attention by blocks: within a block as a masked product, between blocks through the
// state.
#include "model/attention_linear.h"

#include <cmath>

#include "model/norm.h"
#include "model/product.h"
#include "model/torch.h"

namespace moue {
namespace {

// What tokens of a block lose on the way; float32.
struct Decay {
  at::Tensor query;     ///< [H, b, 1] from the state before the block to token i
  at::Tensor key;       ///< [H, b, 1] from token i to the state behind the block
  at::Tensor diagonal;  ///< [H, 1, b, b] from token j to token i; 0 where j comes later
  at::Tensor block;     ///< [H, 1, 1] over the whole block
};

Decay decay_of(const at::Tensor& rate, int64_t block) {
  const at::Tensor r = rate.view({-1, 1, 1});
  const at::Tensor at = at::arange(1, block + 1, rate.options());
  const at::Tensor distance = at.unsqueeze(1) - at.unsqueeze(0);
  return {at::exp(-r * at.unsqueeze(1)),
          at::exp(-r * (static_cast<double>(block) - at.unsqueeze(1))),
          at::exp(-r * distance).tril().unsqueeze(1), at::exp(-r * static_cast<double>(block))};
}

// States before each block [B, H, n, A, A] from what each adds.
at::Tensor states_before(const at::Tensor& added, const at::Tensor& block_decay) {
  std::vector<at::Tensor> states{at::zeros_like(added.select(2, 0))};
  for (int64_t i = 0; i + 1 < added.size(2); ++i)
    states.push_back(states.back() * block_decay + added.select(2, i));
  return at::stack(states, 2);
}

// q, k, v [B, H, n, b, A] float32: n blocks of b tokens. The state is a running sum over all
// tokens, so it and what is read from it stay in float32.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const at::Tensor& rate) {
  const Decay decay = decay_of(rate, q.size(3));
  const at::Tensor within = at::matmul(at::matmul(q, k.transpose(-1, -2)) * decay.diagonal, v);
  if (q.size(2) == 1) return within;
  const at::Tensor added = at::matmul((k * decay.key.unsqueeze(1)).transpose(-1, -2), v);
  const at::Tensor state = states_before(added, decay.block);
  return within + at::matmul(q * decay.query.unsqueeze(1), state);
}

}  // namespace

at::Tensor decay_rates(int64_t heads, int64_t layer, int64_t layers) {
  const double base = 1.0 / std::pow(2.0, 8.0 / static_cast<double>(heads));
  const double factor =
      1.0 - static_cast<double>(layer) / (static_cast<double>(layers) - 1.0 + 1e-5) + 1e-5;
  return at::pow(at::Scalar(base), at::arange(1, heads + 1, at::kFloat)) * factor;
}

at::Tensor attention_linear(const at::Tensor& x_TD, int64_t batch, const AttentionSpec& spec,
                            const at::Tensor& rate, double eps, const LinearWeights& weights) {
  const int64_t length = x_TD.size(0) / batch, H = spec.heads, A = spec.head_width;
  // A sequence shorter than a block is one block; tokens behind the last are zeros and reach
  // nobody.
  const int64_t block = std::min(spec.block, length), blocks = (length + block - 1) / block;
  const at::Tensor qkv = at::silu(project(x_TD, weights.input))
                             .to(at::kFloat)
                             .view({batch, length, H, 3 * A})
                             .transpose(1, 2);
  const at::Tensor padded = at::constant_pad_nd(qkv, {0, 0, 0, blocks * block - length});
  const auto parts = padded.reshape({batch, H, blocks, block, 3 * A}).split(A, -1);
  const at::Tensor out = attend(parts[0], parts[1], parts[2], rate)
                             .reshape({batch, H, blocks * block, A})
                             .narrow(2, 0, length)
                             .transpose(1, 2)
                             .reshape({batch * length, H * A})
                             .to(x_TD.scalar_type());
  const at::Tensor gate = at::sigmoid(project(x_TD, weights.gate));
  return project(gate * rms_norm(out, weights.norm, eps), weights.output);
}

}  // namespace moue
