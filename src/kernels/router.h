// The router of one MoE layer: every logit term, stable top-k, gates, counts. docs/method.md
// sections 4 and 6.
#pragma once

#include "kernels/element.h"

namespace moue::kernels {

/// How a family scores slots, chooses among them and weighs its choice. Legend: T tokens, N home
/// slots, S slots (home first), K chosen.
struct RouterRule {
  enum class Score : uint8_t {
    Softmax,  ///< over all open slots
    Sigmoid,  ///< of each slot by itself; the choice is made by score, not by z
    Chosen,   ///< softmax over the chosen slots alone
    Sparse,  ///< one pass per choice: softmax over the open slots near it, earlier choices left out
  };
  enum class GroupScore : uint8_t { Best, SumOfTwo };  ///< of a group's selection keys

  Score score = Score::Softmax;
  bool renormalise = true;  ///< Softmax, Sigmoid: gate = score / (norm + norm_eps), else score
  float norm_power = 1;     ///< norm = (sum over chosen of score^p)^(1/p)
  float norm_eps = 0;
  float scale = 1;          ///< of the weights; gates are without it
  int64_t groups = 1;       ///< equal runs of home slots; foreign slots are in none
  int64_t kept_groups = 1;  ///< home slots outside the best groups are not chosen
  GroupScore group_score = GroupScore::Best;
  float jitter = 0;  ///< Sparse: near is (z_c - z) / max(|z|, z_c) <= 2 jitter, c the choice
  bool round_scores = false;  ///< z, scores and their norm are rounded to `element`
  bool round_gates = false;   ///< gates are rounded to `element`
};

/// z[t,s] = home[t,s] or foreign[t,s-N] + beta[s-N], + bonus[t,s] + log_visibility[s]. Chosen: the
/// K best keys z (Sigmoid: sigmoid(z)) + correction + pool_bias, ties to the lower slot; a closed
/// slot (log_visibility = -inf) is never chosen and in no softmax. Sums over slots add the home
/// slots first, so that closed foreign slots do not change a bit.
struct RouterForward {
  Element element;  ///< of home and foreign
  RouterRule rule;
  const void* home;             ///< [T, N]
  const void* foreign;          ///< [T, S - N]; null when S = N
  const float* beta;            ///< [S - N]
  const float* bonus;           ///< [T, S] trajectory bonus, or null
  const float* log_visibility;  ///< [S]
  const float* correction;      ///< [S] the family's selection bias, or null
  const float* pool_bias;       ///< [S], added to the selection key only
  const float* scale;           ///< [S - N], a
  float* z;                     ///< [T, S]
  int32_t* chosen;              ///< [T, K] slots, best first
  float* gate;                  ///< [T, K]
  float* weight;                ///< [T, K] gate times rule.scale times a
  int64_t* count;               ///< [S]
  double* probability;          ///< [S] sum over tokens of each open slot's share of the scores
  double* partial;              ///< scratch, router_partials(T) * S
  int64_t tokens, home_slots, slots, chosen_per_token;
};
/// K home slots at least are in kept groups; groups divide N.
void router_forward(const RouterForward& a, Where where);
inline constexpr int64_t kRouterTokens = 32;  ///< of one partial sum
int64_t router_partials(int64_t tokens);

/// dz = gate rule backward of (dgate + dweight * rule.scale * a) + balance_scale * gradient of
/// sum_s v[s] share[s], share = score / sum of open scores: share (v - sum share v), times 1 -
/// score for Sigmoid. The choice, groups, near slots and roundings are constants. dz [T, S] float32
/// (also the gradient of bonus), dhome [T, N] and dforeign [T, S - N] the same in `element`, dbeta,
/// dscale [S - N] float32 (overwritten).
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
