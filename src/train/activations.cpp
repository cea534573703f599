// Bytes and operations of a pass, block by block, as src/model computes it.
#include "train/activations.h"

#include <algorithm>

namespace moue {
namespace {

constexpr double kFloat = 4;
constexpr double kLogitElements = 1 << 21;  // of one chunk (model/ops.cpp)

double real(int64_t count) { return static_cast<double>(count); }

/// Widths of a layer's attention.
struct Widths {
  double query = 0, kv = 0, value = 0;  ///< all heads together
  double projected = 0;                 ///< outputs of the products before the scores
  double weights = 0;                   ///< elements of all its matrices
};

Widths widths_of(const ModelSpec& spec, int64_t layer) {
  const AttentionSpec& a = spec.attention;
  const LatentSpec& l = a.latent;
  const double D = real(spec.width), H = real(a.heads), G = real(a.kv_heads),
               A = real(a.head_width);
  Widths w;
  switch (a.kind(layer)) {
    case AttentionKind::Latent: {
      const double key = real(l.plain_width + l.rope_width), rank = real(l.rank);
      w = {H * key, H * key, H * real(l.value_width), 0, 0};
      const double down = rank + real(l.rope_width), up = H * real(l.plain_width + l.value_width);
      const double query = real(l.query_rank);
      w.projected = down + rank + up + w.query + (query > 0 ? 2 * query : 0);
      w.weights = D * down + rank * up + w.value * D +
                  (query > 0 ? D * query + query * w.query : D * w.query);
      return w;
    }
    case AttentionKind::Linear:
      w = {H * A, H * A, H * A, 4 * H * A, 5 * H * A * D};
      return w;
    case AttentionKind::Experts: {
      const double K = real(spec.experts_per_token);
      w = {H * A, G * A, H * A, H * A + 2 * G * A, 2 * K * G * A * D + 2 * G * A * D};
      return w;
    }
    case AttentionKind::Grouped:
      break;
  }
  w = {H * A, G * A, H * A, H * A + 2 * G * A, 0};
  w.weights = D * w.projected + w.query * D;
  return w;
}

// Per token unless it says otherwise.
double attention_bytes(const ModelSpec& spec, int64_t layer, const PassShape& shape) {
  const AttentionSpec& a = spec.attention;
  const Widths w = widths_of(spec, layer);
  const double e = shape.element, D = real(spec.width);
  double bytes = 2 * D * e + kFloat;                  // the block's input, and normalised
  bytes += w.projected * e;                           // values are a view of it
  bytes += (w.query + w.kv) * e;                      // rotated
  bytes += 2 * w.value * e + real(a.heads) * kFloat;  // answers, in both orders of heads; sums
  if (a.qk_norm != QkNorm::None) bytes += (w.query + w.kv) * e + real(a.heads) * 2 * kFloat;
  if (a.sinks) bytes += (w.query + 2 * w.kv) * e;
  if (a.kind(layer) == AttentionKind::Latent) bytes += (w.kv + w.query) * e;  // put together
  if (a.kind(layer) == AttentionKind::Experts)
    bytes += real(spec.experts_per_token) * D * e + real(spec.experts) * 2 * kFloat;
  const bool windowed = !a.window.empty() && a.window[layer] > 0 && a.window[layer] < shape.length;
  double once = 0;
  if (windowed) once = real(shape.length) * real(shape.length) * (1 + e);  // which keys are seen
  return bytes * shape.tokens() + once;
}

double ffn_bytes(double width, double e) { return 3 * width * e; }  // gate, up, their product

double moe_bytes(const ModelSpec& spec, const Pool& pool, bool is_moue, int64_t moe_layer,
                 const PassShape& shape) {
  const double e = shape.element, D = real(spec.width), N = real(spec.experts),
               K = real(spec.experts_per_token), F = real(spec.expert_width),
               S = real(static_cast<int64_t>(pool.slots[moe_layer].size()));
  double bytes = 3 * D * e + kFloat;  // input, xhat, u
  if (spec.router.float32_logits && e < kFloat) bytes += D * kFloat;
  bytes += N * e + S * kFloat;  // logits
  bytes += 8 * K * kFloat;      // choices, gates, weights, places of rows
  bytes += K * 2 * F * e;       // gate and up before the activation
  if (is_moue) bytes += 6 * real(pool.state_dim) * kFloat + K * kFloat;
  if (shape.z_loss) bytes += 3 * S * kFloat;
  if (spec.shared_width > 0) bytes += ffn_bytes(real(spec.shared_width), e) + D * e;
  return bytes * shape.tokens();
}

double dense_bytes(const ModelSpec& spec, const PassShape& shape) {
  const double e = shape.element, D = real(spec.width);
  return (2 * D * e + kFloat + ffn_bytes(real(spec.dense_width), e)) * shape.tokens();
}

// What the way back through one block makes: rows of the experts twice in and out, and gradients.
double backward_work(const ModelSpec& spec, const PassShape& shape) {
  const double e = shape.element, D = real(spec.width), K = real(spec.experts_per_token),
               F = real(spec.expert_width);
  const double routed = K * (3 * D + 4 * F) * e + 3 * D * e;
  const double dense = (4 * real(spec.dense_width) + 3 * D) * e;
  const double shared = 4 * real(spec.shared_width) * e;
  const Widths w = widths_of(spec, 0);
  const double attention = (2 * w.projected + 2 * w.query + 2 * w.kv + 3 * D) * e;
  return std::max({routed + shared, dense, attention}) * shape.tokens();
}

}  // namespace

PassBytes pass_bytes(const ModelSpec& spec, const Pool& pool, bool is_moue, const PassShape& shape,
                     bool trains_head) {
  PassBytes bytes;
  const double e = shape.element, D = real(spec.width), V = real(spec.vocabulary),
               T = shape.tokens();
  double largest = 0;
  for (int64_t layer = 0, moe_layer = 0; layer < spec.layers; ++layer) {
    const double one = attention_bytes(spec, layer, shape) +
                       (spec.moe[layer] ? moe_bytes(spec, pool, is_moue, moe_layer, shape)
                                        : dense_bytes(spec, shape));
    moe_layer += spec.moe[layer];
    largest = std::max(largest, one);
    const double input = (D * e + (is_moue ? real(pool.state_dim) * kFloat : 0)) * T;
    bytes.kept += shape.recompute ? input : one;
  }
  if (shape.recompute) bytes.kept += largest;  // one block is there again
  bytes.kept += 3 * D * e * T;                 // embedded, last hidden states, their gradient
  bytes.kept += 2 * 8 * T;                     // tokens and targets
  bytes.work = backward_work(spec, shape);
  const double chunk = std::min(T, std::max(16.0, kLogitElements / V));
  bytes.logits = chunk * V * e;
  if (trains_head) bytes.logits += V * D * kFloat + (e < kFloat ? V * D * e : 0);
  return bytes;
}

TokenWork token_work(const ModelSpec& spec, const Pool& pool, bool is_moue, int64_t length) {
  TokenWork work;
  const double D = real(spec.width);
  double weights = 0, scores = 0, experts = 0;  // elements a token is multiplied with
  for (int64_t layer = 0, moe_layer = 0; layer < spec.layers; ++layer) {
    const Widths w = widths_of(spec, layer);
    const int64_t window = spec.attention.window.empty() ? 0 : spec.attention.window[layer];
    const double seen = window > 0 ? std::min(real(window), real(length) / 2) : real(length) / 2;
    weights += w.weights;
    scores += (w.query + w.value) * seen;
    if (!spec.moe[layer]) {
      weights += 3 * D * real(spec.dense_width);
      continue;
    }
    experts += 3 * D * real(spec.expert_width) * real(spec.experts_per_token);
    weights += 3 * D * real(spec.shared_width) +
               D * real(static_cast<int64_t>(pool.slots[moe_layer].size()));
    if (is_moue)
      weights += real(pool.state_dim) * real(static_cast<int64_t>(pool.slots[moe_layer].size()));
    ++moe_layer;
  }
  weights += D * real(spec.vocabulary);
  work.forward = 2 * (weights + experts + scores);
  work.inputs = 2 * (weights + experts) + 4 * scores;
  work.weights = 2 * (weights + experts);
  work.experts = 2 * experts;
  return work;
}

}  // namespace moue
