// The router on the CPU: the reference.
#include "kernels/router.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <vector>

#include "kernels/rows.h"

namespace moue::kernels {
namespace {

constexpr float kClosed = -std::numeric_limits<float>::infinity();

// One token's logits. Additions happen in this order for home and foreign slots alike; for a closed
// model each added term is +-0.
template <class T>
void logits(const RouterForward& a, int64_t t, float* z) {
  const int64_t N = a.home_slots, S = a.slots;
  const T* home = static_cast<const T*>(a.home) + t * N;
  const T* foreign = static_cast<const T*>(a.foreign) + t * (S - N);
  for (int64_t s = 0; s < N; ++s) z[s] = load(home[s]);
  for (int64_t s = N; s < S; ++s) z[s] = load(foreign[s - N]) + a.beta[s - N];
  if (a.bonus) {
    for (int64_t s = 0; s < S; ++s) z[s] += a.bonus[t * S + s];
  }
  for (int64_t s = N; s < S; ++s)
    z[s] = a.log_visibility[s] == kClosed ? kClosed : z[s] + a.log_visibility[s];
}

// NaN stands before every number, as in torch.topk, so that it reaches a gate and the loss.
bool ahead(float key, float other) { return key > other || (key != key && other == other); }

// The K largest keys by insertion; a later slot moves ahead only when strictly larger.
void top_k(const float* z, const float* bias, int64_t slots, int64_t K, int32_t* chosen,
           float* keys) {
  int64_t kept = 0;
  for (int64_t s = 0; s < slots; ++s) {
    if (z[s] == kClosed) continue;
    const float key = z[s] + bias[s];
    if (kept == K && !ahead(key, keys[K - 1])) continue;
    int64_t at = kept < K ? kept++ : K - 1;
    for (; at > 0 && ahead(key, keys[at - 1]); --at) {
      keys[at] = keys[at - 1];
      chosen[at] = chosen[at - 1];
    }
    keys[at] = key;
    chosen[at] = static_cast<int32_t>(s);
  }
  // Only home logits of -inf leave places free: such a token goes to the first slots left.
  for (int64_t s = 0; kept < K; ++s) {
    if (std::find(chosen, chosen + kept, s) == chosen + kept)
      chosen[kept++] = static_cast<int32_t>(s);
  }
}

MOUE_CLONES float largest(const float* z, int64_t slots) {
  float top = kClosed;
#pragma omp simd reduction(max : top)
  for (int64_t s = 0; s < slots; ++s) top = z[s] > top ? z[s] : top;
  return top;
}

MOUE_CLONES float exponentials(const float* z, float top, float* out, int64_t slots) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t s = 0; s < slots; ++s) {
    out[s] = z[s] == kClosed ? 0.0f : fast_exp(z[s] - top);
    sum += out[s];
  }
  return sum;
}

// probability = softmax(z), the denominator summed over home slots first.
void softmax(const float* z, int64_t home, int64_t slots, float* probability) {
  const float top = largest(z, slots);
  const float own = exponentials(z, top, probability, home);
  const float foreign = exponentials(z + home, top, probability + home, slots - home);
  const float scale = 1.0f / (own + foreign);
  for (int64_t s = 0; s < slots; ++s) probability[s] *= scale;
}

void gates(const RouterForward& a, const float* z, const float* probability, const int32_t* chosen,
           float* gate) {
  const int64_t K = a.chosen_per_token;
  if (a.rule == RouterRule::SoftmaxAll) {
    for (int64_t k = 0; k < K; ++k) gate[k] = probability[chosen[k]];
    return;
  }
  float top = kClosed, sum = 0;
  for (int64_t k = 0; k < K; ++k) top = std::max(top, z[chosen[k]]);
  for (int64_t k = 0; k < K; ++k) sum += gate[k] = std::exp(z[chosen[k]] - top);
  for (int64_t k = 0; k < K; ++k) gate[k] /= sum;
}

template <class T>
void forward_block(const RouterForward& a, int64_t block) {
  const int64_t S = a.slots, N = a.home_slots, K = a.chosen_per_token;
  std::vector<float> probability(S), keys(K);
  double* sums = a.partial + block * S;
  std::fill_n(sums, S, 0.0);
  for (int64_t t = block * kRouterTokens; t < std::min(a.tokens, (block + 1) * kRouterTokens);
       ++t) {
    float* z = a.z + t * S;
    int32_t* chosen = a.chosen + t * K;
    logits<T>(a, t, z);
    top_k(z, a.pool_bias, S, K, chosen, keys.data());
    softmax(z, N, S, probability.data());
    gates(a, z, probability.data(), chosen, a.gate + t * K);
    for (int64_t k = 0; k < K; ++k) {
      const float scale = chosen[k] < N ? 1.0f : a.scale[chosen[k] - N];
      a.weight[t * K + k] = a.gate[t * K + k] * scale;
    }
    for (int64_t s = 0; s < S; ++s) sums[s] += probability[s];
  }
}

// dz of one token from the gradient of its gates.
void gate_backward(const RouterBackward& a, const float* probability, const int32_t* chosen,
                   const float* gate, const float* dgate, float* dz) {
  const int64_t K = a.chosen_per_token;
  float dot = 0;
  for (int64_t k = 0; k < K; ++k) dot += gate[k] * dgate[k];
  if (a.rule == RouterRule::SoftmaxChosen) {
    for (int64_t k = 0; k < K; ++k) dz[chosen[k]] += gate[k] * (dgate[k] - dot);
    return;
  }
  for (int64_t s = 0; s < a.slots; ++s) dz[s] -= probability[s] * dot;
  for (int64_t k = 0; k < K; ++k) dz[chosen[k]] += gate[k] * dgate[k];
}

void balance_backward(const RouterBackward& a, const float* probability, float* dz) {
  double mean = 0;
  for (int64_t s = 0; s < a.slots; ++s) mean += static_cast<double>(probability[s]) * a.balance[s];
  for (int64_t s = 0; s < a.slots; ++s) {
    dz[s] += a.balance_scale * probability[s] * (a.balance[s] - static_cast<float>(mean));
  }
}

template <class T>
void backward_token(const RouterBackward& a, int64_t t, float* probability, float* dgate,
                    float* dscale, float* dbeta) {
  const int64_t S = a.slots, N = a.home_slots, K = a.chosen_per_token;
  const int32_t* chosen = a.chosen + t * K;
  const float* gate = a.gate + t * K;
  float* dz = a.dz + t * S;
  std::fill_n(dz, S, 0.0f);
  if (a.balance || a.rule == RouterRule::SoftmaxAll) softmax(a.z + t * S, N, S, probability);
  for (int64_t k = 0; k < K; ++k) {
    const bool foreign = chosen[k] >= N;
    const float dweight = a.dweight ? a.dweight[t * K + k] : 0.0f;
    dgate[k] =
        (a.dgate ? a.dgate[t * K + k] : 0.0f) + dweight * (foreign ? a.scale[chosen[k] - N] : 1.0f);
    if (foreign) dscale[chosen[k] - N] += dweight * gate[k];
  }
  gate_backward(a, probability, chosen, gate, dgate, dz);
  if (a.balance) balance_backward(a, probability, dz);
  for (int64_t s = 0; s < N; ++s) store(static_cast<T*>(a.dhome)[t * N + s], dz[s]);
  for (int64_t s = N; s < S; ++s) {
    store(static_cast<T*>(a.dforeign)[t * (S - N) + s - N], dz[s]);
    dbeta[s - N] += dz[s];
  }
}

template <class T>
void backward_block(const RouterBackward& a, int64_t block) {
  const int64_t foreign = a.slots - a.home_slots;
  std::vector<float> probability(a.slots), dgate(a.chosen_per_token);
  float* sums = a.partial + block * 2 * foreign;
  std::fill_n(sums, 2 * foreign, 0.0f);
  for (int64_t t = block * kRouterTokens; t < std::min(a.tokens, (block + 1) * kRouterTokens);
       ++t) {
    backward_token<T>(a, t, probability.data(), dgate.data(), sums, sums + foreign);
  }
}

}  // namespace

int64_t router_partials(int64_t tokens) { return (tokens + kRouterTokens - 1) / kRouterTokens; }

void router_forward(const RouterForward& a, Where where) {
  if (where.cuda) return cuda::router_forward(a, where.stream);
  assert(a.chosen_per_token <= a.home_slots);
  const int64_t blocks = router_partials(a.tokens), S = a.slots;
  with_element(a.element, [&](auto tag) {
    for_rows(blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) forward_block<decltype(tag)>(a, b);
    });
  });
  std::fill_n(a.count, S, 0);
  std::fill_n(a.probability, S, 0.0);
  for (int64_t i = 0; i < a.tokens * a.chosen_per_token; ++i) ++a.count[a.chosen[i]];
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t s = 0; s < S; ++s) a.probability[s] += a.partial[b * S + s];
  }
}

void router_backward(const RouterBackward& a, Where where) {
  if (where.cuda) return cuda::router_backward(a, where.stream);
  const int64_t blocks = router_partials(a.tokens), foreign = a.slots - a.home_slots;
  with_element(a.element, [&](auto tag) {
    for_rows(blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) backward_block<decltype(tag)>(a, b);
    });
  });
  std::fill_n(a.dscale, foreign, 0.0f);
  std::fill_n(a.dbeta, foreign, 0.0f);
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t s = 0; s < foreign; ++s) {
      a.dscale[s] += a.partial[b * 2 * foreign + s];
      a.dbeta[s] += a.partial[b * 2 * foreign + foreign + s];
    }
  }
}

}  // namespace moue::kernels
