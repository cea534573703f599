// The router on the CPU: the reference.
#include "kernels/router.h"

#include <algorithm>
#include <cassert>

#include "kernels/router_token.h"
#include "kernels/rows.h"

namespace moue::kernels {
namespace {

using router::kClosed;

// One token's logits. Additions happen in this order for home and foreign slots alike; for a closed
// model each added term is +-0.
template <class T>
void logits(const RouterForward& a, int64_t t, bool round, float* z) {
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
  if (!round) return;
  for (int64_t s = 0; s < S; ++s) z[s] = router::rounded(true, z[s]);
}

template <class T>
void forward_block(const RouterForward& a, int64_t block) {
  const int64_t S = a.slots, N = a.home_slots, K = a.chosen_per_token;
  const router::Shape shape = router::shape_of(a.rule, a.element, N, S, K);
  router::Scratch scratch(shape);
  double* sums = a.partial + block * S;
  std::fill_n(sums, S, 0.0);
  for (int64_t t = block * kRouterTokens; t < std::min(a.tokens, (block + 1) * kRouterTokens);
       ++t) {
    float* z = a.z + t * S;
    int32_t* chosen = a.chosen + t * K;
    logits<T>(a, t, shape.rule.round_scores, z);
    const float share = router::scores(shape, z, scratch);
    for (int64_t s = 0; s < S; ++s) sums[s] += scratch.score[s] * share;
    router::choose(shape, z, a.correction, a.pool_bias, chosen, scratch);
    router::gates(shape, z, chosen, a.gate + t * K, scratch);
    for (int64_t k = 0; k < K; ++k) {
      const float scale = chosen[k] < N ? 1.0f : a.scale[chosen[k] - N];
      a.weight[t * K + k] = a.gate[t * K + k] * a.rule.scale * scale;
    }
  }
}

// The gates' gradients of one token; adds to dscale.
void gate_gradients(const RouterBackward& a, int64_t t, float* dgate, float* dscale) {
  const int64_t N = a.home_slots, K = a.chosen_per_token;
  for (int64_t k = 0; k < K; ++k) {
    const int64_t slot = a.chosen[t * K + k];
    const float dweight = a.dweight ? a.dweight[t * K + k] * a.rule.scale : 0.0f;
    dgate[k] =
        (a.dgate ? a.dgate[t * K + k] : 0.0f) + dweight * (slot < N ? 1.0f : a.scale[slot - N]);
    if (slot >= N) dscale[slot - N] += dweight * a.gate[t * K + k];
  }
}

template <class T>
void backward_token(const RouterBackward& a, const router::Shape& shape, int64_t t,
                    router::Scratch& scratch, float* dscale, float* dbeta) {
  const int64_t S = a.slots, N = a.home_slots, K = a.chosen_per_token;
  const float* z = a.z + t * S;
  float* dz = a.dz + t * S;
  std::fill_n(dz, S, 0.0f);
  gate_gradients(a, t, scratch.dgate.data(), dscale);
  if (a.balance || router::needs_scores(a.rule)) {
    const float share = router::scores(shape, z, scratch);
    if (a.balance) router::balance_backward(shape, a.balance, a.balance_scale, share, dz, scratch);
  }
  router::gates_backward(shape, z, a.chosen + t * K, a.gate + t * K, dz, scratch);
  for (int64_t s = 0; s < N; ++s) store(static_cast<T*>(a.dhome)[t * N + s], dz[s]);
  for (int64_t s = N; s < S; ++s) {
    store(static_cast<T*>(a.dforeign)[t * (S - N) + s - N], dz[s]);
    dbeta[s - N] += dz[s];
  }
}

template <class T>
void backward_block(const RouterBackward& a, int64_t block) {
  const int64_t foreign = a.slots - a.home_slots;
  const router::Shape shape =
      router::shape_of(a.rule, a.element, a.home_slots, a.slots, a.chosen_per_token);
  router::Scratch scratch(shape);
  float* sums = a.partial + block * 2 * foreign;
  std::fill_n(sums, 2 * foreign, 0.0f);
  for (int64_t t = block * kRouterTokens; t < std::min(a.tokens, (block + 1) * kRouterTokens);
       ++t) {
    backward_token<T>(a, shape, t, scratch, sums, sums + foreign);
  }
}

}  // namespace

int64_t router_partials(int64_t tokens) { return (tokens + kRouterTokens - 1) / kRouterTokens; }

void router_forward(const RouterForward& a, Where where) {
  if (where.cuda) return cuda::router_forward(a, where.stream);
  assert(a.chosen_per_token * a.rule.groups <= a.home_slots * a.rule.kept_groups);
  assert(a.home_slots % a.rule.groups == 0);
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
