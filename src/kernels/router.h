// The router of one MoE layer: every logit term, stable top-k, gates, counts. docs/method.md
// sections 4 and 6.
#pragma once

#include "kernels/element.h"

namespace moue::kernels {

/// Legend: T tokens, N home slots, S slots (home first), K chosen.
enum class RouterRule : uint8_t {
  SoftmaxChosen,  ///< gate = softmax over the chosen (softmax over all, renormalised)
  SoftmaxAll,     ///< gate = probability among all open slots, not renormalised
};

/// z[t,s] = home[t,s] or foreign[t,s-N] + beta[s-N], + bonus[t,s] + log_visibility[s]. Chosen: the
/// K best z + pool_bias, ties to the lower slot; a closed slot (log_visibility = -inf) is never
/// chosen. Sums over slots add the home slots first, so that closed foreign slots do not change a
/// bit.
struct RouterForward {
  Element element;  ///< of home and foreign
  RouterRule rule;
  const void* home;             ///< [T, N]
  const void* foreign;          ///< [T, S - N]; null when S = N
  const float* beta;            ///< [S - N]
  const float* bonus;           ///< [T, S] trajectory bonus, or null
  const float* log_visibility;  ///< [S]
  const float* pool_bias;       ///< [S], added to the selection key only
  const float* scale;           ///< [S - N], a
  float* z;                     ///< [T, S]
  int32_t* chosen;              ///< [T, K] slots, best first
  float* gate;                  ///< [T, K]
  float* weight;                ///< [T, K] gate times a
  int64_t* count;               ///< [S]
  double* probability;          ///< [S] sum over tokens of softmax(z) over open slots
  double* partial;              ///< scratch, router_partials(T) * S
  int64_t tokens, home_slots, slots, chosen_per_token;
};
void router_forward(const RouterForward& a, Where where);
inline constexpr int64_t kRouterTokens = 32;  ///< of one partial sum
int64_t router_partials(int64_t tokens);

/// dz = gate rule backward of (dgate + dweight * a) + balance_scale * prob (v - sum prob v) over
/// open slots. dz [T, S] float32 (also the gradient of bonus), dhome [T, N] and dforeign [T, S - N]
/// the same in `element`, dbeta, dscale [S - N] float32 (overwritten).
struct RouterBackward {
  Element element;
  RouterRule rule;
  const float* z;
  const int32_t* chosen;
  const float* gate;
  const float* scale;
  const float* dgate;    ///< [T, K] or null
  const float* dweight;  ///< [T, K] or null
  const float* balance;  ///< [S] v, or null
  float balance_scale;
  float* dz;
  void* dhome;
  void* dforeign;
  float* dbeta;
  float* dscale;
  float* partial;  ///< scratch, router_partials(T) * 2 * (S - N)
  int64_t tokens, home_slots, slots, chosen_per_token;
};
void router_backward(const RouterBackward& a, Where where);

namespace cuda {
void router_forward(const RouterForward& a, void* stream);
void router_backward(const RouterBackward& a, void* stream);
}  // namespace cuda

}  // namespace moue::kernels
