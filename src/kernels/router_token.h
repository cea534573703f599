// One token in the CPU router: its scores, choice and gates, and the gradient of both. Not for CUDA
// sources.
#pragma once

#include <limits>
#include <vector>

#include "kernels/router.h"

namespace moue::kernels::router {

inline constexpr float kClosed = -std::numeric_limits<float>::infinity();

/// What all tokens of a call share.
struct Shape {
  RouterRule rule;  ///< rounds to bfloat16 where it says so: off for float32
  int64_t home, slots, chosen;
};
Shape shape_of(const RouterRule& rule, Element element, int64_t home, int64_t slots,
               int64_t chosen);

/// Numbers of the token at hand.
struct Scratch {
  explicit Scratch(const Shape& n);
  std::vector<float> score;  ///< [S]
  std::vector<float> key;    ///< [S]
  std::vector<float> best;   ///< [K] keys of the chosen
  std::vector<float> group;  ///< [groups]
  std::vector<float> dgate;  ///< [K]
};

/// x in bfloat16 and back where `round`.
float rounded(bool round, float x);

/// probability = softmax over open slots, the denominator summed over home slots first; in place
/// where they are the same.
void softmax(const float* z, int64_t home, int64_t slots, float* probability);

/// Fills w.score: sigmoids for Sigmoid, else the softmax of all open slots; 0 where closed. Returns
/// what makes a score a share of the open scores.
float scores(const Shape& n, const float* z, Scratch& w);

/// The K best keys; needs w.score.
void choose(const Shape& n, const float* z, const float* correction, const float* pool_bias,
            int32_t* chosen, Scratch& w);

/// Gates of the chosen; needs w.score, which Sparse overwrites.
void gates(const Shape& n, const float* z, const int32_t* chosen, float* gate, Scratch& w);

/// Does gates_backward need w.score?
bool needs_scores(const RouterRule& rule);
/// Adds to dz the gradient through the gates; w.dgate is theirs. Sparse overwrites w.score.
void gates_backward(const Shape& n, const float* z, const int32_t* chosen, const float* gate,
                    float* dz, Scratch& w);
/// Adds to dz the gradient of scale * sum_s v[s] share[s]; needs w.score.
void balance_backward(const Shape& n, const float* v, float scale, float share, float* dz,
                      const Scratch& w);

}  // namespace moue::kernels::router
