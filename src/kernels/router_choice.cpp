// The CPU router's choice: selection keys, group limits, stable top-k.
#include <algorithm>

#include "kernels/router_token.h"
#include "kernels/rows.h"

namespace moue::kernels::router {
namespace {

// NaN stands before every number, as in torch.topk, so that it reaches a gate and the loss.
bool ahead(float key, float other) { return key > other || (key != key && other == other); }

// A closed slot stays closed whatever the biases are.
MOUE_CLONES void keys_of(const float* z, const float* value, const float* correction,
                         const float* bias, int64_t slots, float* key) {
  if (!correction) {
    for (int64_t s = 0; s < slots; ++s) key[s] = z[s] == kClosed ? kClosed : value[s] + bias[s];
    return;
  }
  for (int64_t s = 0; s < slots; ++s)
    key[s] = z[s] == kClosed ? kClosed : value[s] + correction[s] + bias[s];
}

float group_score(RouterRule::GroupScore score, const float* key, int64_t size) {
  float first = key[0], second = kClosed;
  for (int64_t s = 1; s < size; ++s) {
    if (ahead(key[s], first)) {
      second = first;
      first = key[s];
    } else if (ahead(key[s], second)) {
      second = key[s];
    }
  }
  return score == RouterRule::GroupScore::Best || size == 1 ? first : first + second;
}

// Closes the home slots of all groups but the best; ties to the lower group.
void drop_groups(const Shape& n, Scratch& w) {
  const int64_t groups = n.rule.groups, size = n.home / groups;
  for (int64_t g = 0; g < groups; ++g)
    w.group[g] = group_score(n.rule.group_score, &w.key[g * size], size);
  for (int64_t g = 0; g < groups; ++g) {
    int64_t rank = 0;
    for (int64_t other = 0; other < groups; ++other) {
      const bool tie = !ahead(w.group[g], w.group[other]);
      rank += ahead(w.group[other], w.group[g]) || (other < g && tie);
    }
    if (rank >= n.rule.kept_groups) std::fill_n(&w.key[g * size], size, kClosed);
  }
}

// By insertion; a later slot moves ahead only when strictly larger.
void top_k(const Shape& n, const float* key, int32_t* chosen, float* best) {
  const int64_t K = n.chosen;
  int64_t kept = 0;
  for (int64_t s = 0; s < n.slots; ++s) {
    if (kept == K && !ahead(key[s], best[K - 1])) continue;
    if (key[s] == kClosed) continue;
    int64_t at = kept < K ? kept++ : K - 1;
    for (; at > 0 && ahead(key[s], best[at - 1]); --at) {
      best[at] = best[at - 1];
      chosen[at] = chosen[at - 1];
    }
    best[at] = key[s];
    chosen[at] = static_cast<int32_t>(s);
  }
  // Only home logits of -inf leave places free: such a token goes to the first slots left.
  for (int64_t s = 0; kept < K; ++s) {
    if (std::find(chosen, chosen + kept, s) == chosen + kept)
      chosen[kept++] = static_cast<int32_t>(s);
  }
}

}  // namespace

void choose(const Shape& n, const float* z, const float* correction, const float* pool_bias,
            int32_t* chosen, Scratch& w) {
  const bool by_score = n.rule.score == RouterRule::Score::Sigmoid;
  keys_of(z, by_score ? w.score.data() : z, correction, pool_bias, n.slots, w.key.data());
  if (n.rule.kept_groups < n.rule.groups) drop_groups(n, w);
  top_k(n, w.key.data(), chosen, w.best.data());
}

}  // namespace moue::kernels::router
