// The CPU router's scores and gates, and their gradients.
#include <algorithm>

#include "kernels/router_token.h"
#include "kernels/rows.h"

namespace moue::kernels::router {
namespace {

using Score = RouterRule::Score;

float bfloat16(float x) {
  Bf16 narrow;
  store(narrow, x);
  return load(narrow);
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

MOUE_CLONES float sigmoids(const float* z, float* out, int64_t slots) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t s = 0; s < slots; ++s) {
    out[s] = z[s] == kClosed ? 0.0f : 1.0f / (1.0f + fast_exp(-z[s]));
    sum += out[s];
  }
  return sum;
}

// Softmax over all slots, renormalised, is softmax over the chosen: one rounding less.
bool is_chosen_softmax(const RouterRule& rule) {
  return rule.score == Score::Chosen ||
         (rule.score == Score::Softmax && rule.renormalise && rule.norm_power == 1 &&
          rule.norm_eps == 0 && !rule.round_scores);
}

void chosen_softmax(const Shape& n, const float* z, const int32_t* chosen, float* gate) {
  float top = kClosed, sum = 0;
  for (int64_t k = 0; k < n.chosen; ++k) top = std::max(top, z[chosen[k]]);
  for (int64_t k = 0; k < n.chosen; ++k) sum += gate[k] = std::exp(z[chosen[k]] - top);
  for (int64_t k = 0; k < n.chosen; ++k) gate[k] = rounded(n.rule.round_gates, gate[k] / sum);
}

// (sum score^p)^(1/p) over the chosen.
float norm(const Shape& n, const int32_t* chosen, const float* score, bool round) {
  const float p = n.rule.norm_power;
  float sum = 0;
  for (int64_t k = 0; k < n.chosen; ++k) {
    const float x = rounded(round, score[chosen[k]]);
    sum += p == 1 ? x : std::pow(x, p);
  }
  return rounded(round, p == 1 ? sum : std::pow(sum, 1 / p));
}

MOUE_CLONES void near_slots(const float* left, float choice, float limit, int64_t slots,
                            float* near) {
  for (int64_t s = 0; s < slots; ++s) {
    const float far = (choice - left[s]) / std::max(std::abs(left[s]), choice);
    near[s] = far > limit ? kClosed : left[s];
  }
}

MOUE_CLONES void near_slots_rounded(const float* left, float choice, float limit, int64_t slots,
                                    float* near) {
  for (int64_t s = 0; s < slots; ++s) {
    const float below = bfloat16(choice - left[s]);
    const float far = bfloat16(below / std::max(std::abs(left[s]), choice));
    near[s] = far > limit ? kClosed : left[s];
  }
}

// Softmax over the slots near the choice; `left` are the logits without earlier choices.
void near_softmax(const Shape& n, const float* left, float choice, float* probability) {
  const bool round = n.rule.round_scores;
  const float limit = rounded(round, 2 * n.rule.jitter);
  (round ? near_slots_rounded : near_slots)(left, choice, limit, n.slots, probability);
  softmax(probability, n.home, n.slots, probability);
}

// Calls f(k) while w.score holds the softmax of choice k's pass.
template <class F>
void for_passes(const Shape& n, const float* z, const int32_t* chosen, Scratch& w, F&& f) {
  std::copy_n(z, n.slots, w.key.begin());
  for (int64_t k = 0; k < n.chosen; ++k) {
    near_softmax(n, w.key.data(), z[chosen[k]], w.score.data());
    f(k);
    w.key[chosen[k]] = kClosed;
  }
}

void sparse_backward(const Shape& n, const float* z, const int32_t* chosen, const float* gate,
                     float* dz, Scratch& w) {
  for_passes(n, z, chosen, w, [&](int64_t k) {
    const float direct = gate[k] * w.dgate[k];
    for (int64_t s = 0; s < n.slots; ++s) dz[s] -= w.score[s] * direct;
    dz[chosen[k]] += direct;
  });
}

// Whether moving one logit moves the gates of all: the denominator over all slots stays.
bool spreads(const RouterRule& rule) {
  return rule.score == Score::Softmax && (!rule.renormalise || rule.norm_eps != 0);
}

// Whether the norm is more than a sum.
bool has_norm(const RouterRule& rule) {
  const bool scored = rule.score == Score::Softmax || rule.score == Score::Sigmoid;
  return scored && rule.renormalise && rule.norm_power != 1;
}

}  // namespace

Shape shape_of(const RouterRule& rule, Element element, int64_t home, int64_t slots,
               int64_t chosen) {
  Shape n{rule, home, slots, chosen};
  n.rule.round_scores = rule.round_scores && element == Element::BFloat16;
  n.rule.round_gates = rule.round_gates && element == Element::BFloat16;
  return n;
}

Scratch::Scratch(const Shape& n)
    : score(n.slots), key(n.slots), best(n.chosen), group(n.rule.groups), dgate(n.chosen) {}

float rounded(bool round, float x) { return round ? bfloat16(x) : x; }

void softmax(const float* z, int64_t home, int64_t slots, float* probability) {
  const float top = largest(z, slots);
  const float own = exponentials(z, top, probability, home);
  const float foreign = exponentials(z + home, top, probability + home, slots - home);
  const float scale = 1.0f / (own + foreign);
  for (int64_t s = 0; s < slots; ++s) probability[s] *= scale;
}

float scores(const Shape& n, const float* z, Scratch& w) {
  if (n.rule.score != Score::Sigmoid) {
    softmax(z, n.home, n.slots, w.score.data());
    return 1;
  }
  const float own = sigmoids(z, w.score.data(), n.home);
  const float foreign = sigmoids(z + n.home, w.score.data() + n.home, n.slots - n.home);
  return 1.0f / (own + foreign);
}

void gates(const Shape& n, const float* z, const int32_t* chosen, float* gate, Scratch& w) {
  if (is_chosen_softmax(n.rule)) return chosen_softmax(n, z, chosen, gate);
  if (n.rule.score == Score::Sparse) {
    return for_passes(n, z, chosen, w, [&](int64_t k) {
      gate[k] = rounded(n.rule.round_gates, w.score[chosen[k]]);
    });
  }
  const bool divide = n.rule.renormalise;
  const bool round = n.rule.round_scores;
  const float below = divide ? norm(n, chosen, w.score.data(), round) + n.rule.norm_eps : 1.0f;
  for (int64_t k = 0; k < n.chosen; ++k) {
    const float score = rounded(round, w.score[chosen[k]]);
    gate[k] = rounded(n.rule.round_gates, divide ? score / below : score);
  }
}

bool needs_scores(const RouterRule& rule) {
  return rule.score == Score::Sigmoid || spreads(rule) || has_norm(rule);
}

// With score s, D = norm + eps and e_k = gate_k (dgate_k - sum_j gate_j dgate_j (s_k /
// norm)^(p-1)): dL/ds_k = e_k / s_k.
void gates_backward(const Shape& n, const float* z, const int32_t* chosen, const float* gate,
                    float* dz, Scratch& w) {
  if (n.rule.score == Score::Sparse) return sparse_backward(n, z, chosen, gate, dz, w);
  const bool powered = has_norm(n.rule);
  const float below = powered ? norm(n, chosen, w.score.data(), false) : 1.0f;
  float dot = 0, sum = 0;
  for (int64_t k = 0; k < n.chosen; ++k) dot += gate[k] * w.dgate[k];
  for (int64_t k = 0; k < n.chosen; ++k) {
    const int32_t s = chosen[k];
    float back = n.rule.score == Score::Chosen || n.rule.renormalise ? dot : 0.0f;
    if (powered) back *= std::pow(w.score[s] / below, n.rule.norm_power - 1);
    const float direct = gate[k] * (w.dgate[k] - back);
    dz[s] += n.rule.score == Score::Sigmoid ? direct * (1.0f - w.score[s]) : direct;
    sum += direct;
  }
  if (!spreads(n.rule)) return;
  for (int64_t s = 0; s < n.slots; ++s) dz[s] -= w.score[s] * sum;
}

void balance_backward(const Shape& n, const float* v, float scale, float share, float* dz,
                      const Scratch& w) {
  const float* score = w.score.data();
  double sum = 0;
  for (int64_t s = 0; s < n.slots; ++s) sum += static_cast<double>(score[s]) * v[s];
  const auto mean = static_cast<float>(sum * share);
  const float scaled = scale * share;
  if (n.rule.score == Score::Sigmoid) {
    for (int64_t s = 0; s < n.slots; ++s)
      dz[s] += scaled * score[s] * (v[s] - mean) * (1.0f - score[s]);
  } else {
    for (int64_t s = 0; s < n.slots; ++s) dz[s] += scaled * score[s] * (v[s] - mean);
  }
}

}  // namespace moue::kernels::router
