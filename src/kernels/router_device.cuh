// What the router's CUDA sources share: a warp's walk over slots, scores, the passes of Sparse,
// sums over rows.
#pragma once

#include "kernels/cuda_check.h"
#include "kernels/router.h"

#include <cassert>

namespace moue::kernels::cuda {

using Score = RouterRule::Score;

inline constexpr float kClosed = -INFINITY;
inline constexpr int64_t kSharedBytes = 48 * 1024;  // what a block may have without asking

/// Calls f(slot) for the lane's slots of [begin, end), in the order every sum over them keeps.
template <class F>
__device__ void for_slots(int64_t begin, int64_t end, F&& f) {
  for (int64_t s = begin + threadIdx.x; s < end; s += 32) f(s);
}

/// The same over all slots, home slots first.
template <class F>
__device__ void for_all_slots(int64_t home, int64_t slots, F&& f) {
  for_slots(0, home, f);
  for_slots(home, slots, f);
}

/// Sum of f(slot) over all slots: home slots, then what foreign slots add.
template <class Sum, class F>
__device__ Sum sum_slots(int64_t home, int64_t slots, F&& f) {
  Sum own = 0, foreign = 0;
  for_slots(0, home, [&](int64_t s) { own += f(s); });
  for_slots(home, slots, [&](int64_t s) { foreign += f(s); });
  return warp_sum(own) + warp_sum(foreign);
}

template <class T>
__device__ float rounded(bool round, float x) {
  if (!round) return x;
  T narrow;
  store(narrow, x);
  return load(narrow);
}

/// What turns a logit into its probability: exp(z - top) * scale.
struct Softmax {
  float top, scale;
  __device__ float operator()(float z) const { return expf(z - top) * scale; }
};

/// Of the logits z(slot), closed where -inf.
template <class Z>
__device__ Softmax softmax(int64_t home, int64_t slots, Z&& z) {
  float top = kClosed;
  for_all_slots(home, slots, [&](int64_t s) { top = fmaxf(top, z(s)); });
  top = warp_max(top);
  const auto value = [&](int64_t s) { return expf(z(s) - top); };
  return {top, 1.0f / sum_slots<float>(home, slots, value)};
}

inline __device__ float sigmoid(float z) { return z == kClosed ? 0.0f : 1.0f / (1.0f + expf(-z)); }

/// A token's scores, and what makes them shares of the open ones.
struct Scores {
  bool by_sigmoid;
  Softmax probability;
  float share;
  __device__ float operator()(float z) const { return by_sigmoid ? sigmoid(z) : probability(z); }
};

inline __device__ Scores scores(const RouterRule& rule, const float* z, int64_t home,
                                int64_t slots) {
  if (rule.score != Score::Sigmoid)
    return {false, softmax(home, slots, [&](int64_t s) { return z[s]; }), 1.0f};
  const auto value = [&](int64_t s) { return sigmoid(z[s]); };
  return {true, {}, 1.0f / sum_slots<float>(home, slots, value)};
}

/// Whether the norm is more than a sum.
inline __device__ bool has_norm(const RouterRule& rule) {
  const bool scored = rule.score == Score::Softmax || rule.score == Score::Sigmoid;
  return scored && rule.renormalise && rule.norm_power != 1;
}

/// (sum score^p)^(1/p) over the chosen.
template <class T>
__device__ float norm(const RouterRule& rule, const Scores& score, const float* z,
                      const int32_t* chosen, int64_t K, bool round) {
  float sum = 0;
  for_slots(0, K, [&](int64_t k) {
    const float x = rounded<T>(round, score(z[chosen[k]]));
    sum += rule.norm_power == 1 ? x : powf(x, rule.norm_power);
  });
  sum = warp_sum(sum);
  return rounded<T>(round, rule.norm_power == 1 ? sum : powf(sum, 1 / rule.norm_power));
}

/// The logits of choice k's pass: -inf where chosen before, or far below the choice.
template <class T>
struct Near {
  const RouterRule& rule;
  const float* z;
  const int32_t* chosen;
  int64_t k;
  __device__ float operator()(int64_t s) const {
    for (int64_t j = 0; j < k; ++j) {
      if (chosen[j] == s) return kClosed;
    }
    const float choice = z[chosen[k]];
    const float below = rounded<T>(rule.round_scores, choice - z[s]);
    const float far = rounded<T>(rule.round_scores, below / fmaxf(fabsf(z[s]), choice));
    return far > rounded<T>(rule.round_scores, 2 * rule.jitter) ? kClosed : z[s];
  }
};

/// partial[i] += the rows' column i, row after row; the first round begins the sums.
template <class Sum>
__device__ void add_rows(const float* rows, int64_t stride, int num_rows, int64_t width, bool first,
                         Sum* partial) {
  const int threads = 32 * blockDim.y;
  for (int64_t i = threadIdx.y * 32 + threadIdx.x; i < width; i += threads) {
    Sum sum = first ? Sum(0) : partial[i];
    for (int w = 0; w < num_rows; ++w) sum += rows[w * stride + i];
    partial[i] = sum;
  }
}

/// Warps of a block that has `bytes` of shared memory for each.
inline unsigned warps_for(int64_t bytes) {
  const int64_t warps = kSharedBytes / bytes;
  assert(warps > 0);
  return static_cast<unsigned>(warps < 8 ? warps : 8);
}

}  // namespace moue::kernels::cuda
