// The router on CUDA, forward. Layout: a token's slots in one row, home first. Launch: a warp per
// token, a block per kRouterTokens tokens, in rounds of up to 8 warps; a row of S numbers per warp
// in shared memory holds first the selection keys, then the shares, which the block adds to its
// partial sums in order of token. A closed model gives the source's bits: lanes walk home and
// foreign slots apart, so that the trees of sums over home slots depend on N alone and closed slots
// add +0 at the end. Idea: top-k by repeated warp maxima over order-preserving integers, as in
// RAFT's warp select; fused with scores and counts as in Megatron-Core's fused router.
#include "kernels/router.h"

#include "kernels/router_device.cuh"

namespace moue::kernels::cuda {
namespace {

constexpr unsigned kAll = 0xffffffffu;
constexpr uint32_t kTaken = 0;  // below the key of every open slot

// Larger keys give larger numbers; -0 and 0 are equal; NaN comes first.
__device__ uint32_t ordered(float key) {
  if (key != key) return 0xffffffffu;
  const uint32_t bits = __float_as_uint(key == 0.0f ? 0.0f : key);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The key that gives this number.
__device__ float key_of(uint32_t number) {
  return __uint_as_float(number & 0x80000000u ? number ^ 0x80000000u : ~number);
}

struct Best {
  uint32_t key = kTaken;
  uint32_t slot = 0xffffffffu;
};

__device__ Best best_of_lane(const uint32_t* keys, int64_t slots) {
  Best best;
  for (int64_t s = threadIdx.x; s < slots; s += 32) {
    if (keys[s] > best.key) best = {keys[s], static_cast<uint32_t>(s)};
  }
  return best;
}

__device__ int32_t first_not_chosen(const int32_t* chosen, int64_t kept) {
  for (int32_t s = 0;; ++s) {
    bool found = false;
    for (int64_t k = 0; k < kept; ++k) found = found || chosen[k] == s;
    if (!found) return s;
  }
}

// The K largest keys, ties to the lower slot. Only the lane that gave a slot looks at its own
// again.
__device__ void top_k(uint32_t* keys, int64_t slots, int64_t K, int32_t* chosen) {
  Best best = best_of_lane(keys, slots);
  for (int64_t k = 0; k < K; ++k) {
    const uint32_t top = __reduce_max_sync(kAll, best.key);
    uint32_t slot = __reduce_min_sync(kAll, best.key == top ? best.slot : 0xffffffffu);
    if (top == kTaken) {  // home logits of -inf leave places free
      slot = threadIdx.x == 0 ? first_not_chosen(chosen, k) : 0;
      slot = __shfl_sync(kAll, slot, 0);
    } else if (slot % 32 == threadIdx.x) {
      keys[slot] = kTaken;
      best = best_of_lane(keys, slots);
    }
    if (threadIdx.x == 0) chosen[k] = static_cast<int32_t>(slot);
  }
  __syncwarp();
}

__device__ uint32_t group_score(RouterRule::GroupScore score, const uint32_t* keys, int64_t size) {
  uint32_t first = kTaken, second = kTaken;
  for (int64_t s = 0; s < size; ++s) {
    const uint32_t low = keys[s] < first ? keys[s] : first;
    first = keys[s] > first ? keys[s] : first;
    second = low > second ? low : second;
  }
  if (score == RouterRule::GroupScore::Best || size == 1 || second == kTaken) return first;
  return ordered(key_of(first) + key_of(second));
}

// Takes the home slots of all groups but the best; ties to the lower group. A lane per group.
__device__ void drop_groups(const RouterRule& rule, int64_t home, uint32_t* keys, uint32_t* group) {
  const int64_t groups = rule.groups, size = home / groups;
  for_slots(0, groups,
            [&](int64_t g) { group[g] = group_score(rule.group_score, keys + g * size, size); });
  __syncwarp();
  for_slots(0, groups, [&](int64_t g) {
    int64_t rank = 0;
    for (int64_t other = 0; other < groups; ++other)
      rank += group[other] > group[g] || (other < g && group[other] == group[g]);
    if (rank < rule.kept_groups) return;
    for (int64_t s = g * size; s < (g + 1) * size; ++s) keys[s] = kTaken;
  });
  __syncwarp();
}

template <class T>
__device__ void logits(const RouterForward& a, int64_t t, float* z) {
  const int64_t N = a.home_slots, S = a.slots;
  const bool round = a.rule.round_scores;
  const T* home = static_cast<const T*>(a.home) + t * N;
  const T* foreign = static_cast<const T*>(a.foreign) + t * (S - N);
  for_slots(0, N, [&](int64_t s) {
    float value = load(home[s]);
    if (a.bonus) value += a.bonus[t * S + s];
    z[s] = rounded<T>(round, value);
  });
  for_slots(N, S, [&](int64_t s) {
    float value = load(foreign[s - N]) + a.beta[s - N];
    if (a.bonus) value += a.bonus[t * S + s];
    const bool closed = a.log_visibility[s] == kClosed;
    z[s] = closed ? kClosed : rounded<T>(round, value + a.log_visibility[s]);
  });
  __syncwarp();
}

__device__ void keys_of(const RouterForward& a, const float* z, const Scores& score,
                        uint32_t* keys) {
  for_all_slots(a.home_slots, a.slots, [&](int64_t s) {
    float value = score.by_sigmoid ? score(z[s]) : z[s];
    if (a.correction) value += a.correction[s];
    keys[s] = z[s] == kClosed ? kTaken : ordered(value + a.pool_bias[s]);
  });
  __syncwarp();
}

// Softmax over all slots, renormalised, is softmax over the chosen: one rounding less.
__device__ bool is_chosen_softmax(const RouterRule& rule) {
  return rule.score == Score::Chosen ||
         (rule.score == Score::Softmax && rule.renormalise && rule.norm_power == 1 &&
          rule.norm_eps == 0 && !rule.round_scores);
}

template <class T>
__device__ void set_gate(const RouterForward& a, int64_t entry, float value) {
  const float gate = rounded<T>(a.rule.round_gates, value);
  const int32_t slot = a.chosen[entry];
  a.gate[entry] = gate;
  a.weight[entry] =
      gate * a.rule.scale * (slot < a.home_slots ? 1.0f : a.scale[slot - a.home_slots]);
  atomicAdd(reinterpret_cast<unsigned long long*>(a.count + slot), 1ull);
}

template <class T>
__device__ void chosen_softmax(const RouterForward& a, int64_t t, const float* z) {
  const int64_t K = a.chosen_per_token;
  const int32_t* chosen = a.chosen + t * K;
  float top = kClosed, sum = 0;
  for_slots(0, K, [&](int64_t k) { top = fmaxf(top, z[chosen[k]]); });
  top = warp_max(top);
  for_slots(0, K, [&](int64_t k) { sum += expf(z[chosen[k]] - top); });
  sum = warp_sum(sum);
  for_slots(0, K, [&](int64_t k) { set_gate<T>(a, t * K + k, expf(z[chosen[k]] - top) / sum); });
}

template <class T>
__device__ void sparse_gates(const RouterForward& a, int64_t t, const float* z) {
  const int64_t K = a.chosen_per_token;
  const int32_t* chosen = a.chosen + t * K;
  for (int64_t k = 0; k < K; ++k) {
    const Near<T> near{a.rule, z, chosen, k};
    const Softmax probability = softmax(a.home_slots, a.slots, near);
    if (threadIdx.x == 0) set_gate<T>(a, t * K + k, probability(z[chosen[k]]));
  }
}

template <class T>
__device__ void gates(const RouterForward& a, int64_t t, const float* z, const Scores& score) {
  const int64_t K = a.chosen_per_token;
  const int32_t* chosen = a.chosen + t * K;
  if (is_chosen_softmax(a.rule)) return chosen_softmax<T>(a, t, z);
  if (a.rule.score == Score::Sparse) return sparse_gates<T>(a, t, z);
  const bool divide = a.rule.renormalise, round = a.rule.round_scores;
  const float below = divide ? norm<T>(a.rule, score, z, chosen, K, round) + a.rule.norm_eps : 1.0f;
  for_slots(0, K, [&](int64_t k) {
    const float value = rounded<T>(round, score(z[chosen[k]]));
    set_gate<T>(a, t * K + k, divide ? value / below : value);
  });
}

// The row of a warp has S numbers, and those of the groups behind them.
template <class T>
__global__ void forward(const RouterForward a, int64_t stride) {
  extern __shared__ float shared[];
  const int64_t S = a.slots, N = a.home_slots, begin = blockIdx.x * kRouterTokens;
  const int64_t end = begin + kRouterTokens < a.tokens ? begin + kRouterTokens : a.tokens;
  float* row = shared + threadIdx.y * stride;
  for (int64_t base = begin; base < end; base += blockDim.y) {
    const int64_t t = base + threadIdx.y;
    if (t < end) {
      float* z = a.z + t * S;
      uint32_t* keys = reinterpret_cast<uint32_t*>(row);
      logits<T>(a, t, z);
      const Scores score = scores(a.rule, z, N, S);
      keys_of(a, z, score, keys);
      if (a.rule.kept_groups < a.rule.groups) drop_groups(a.rule, N, keys, keys + S);
      top_k(keys, S, a.chosen_per_token, a.chosen + t * a.chosen_per_token);
      for_all_slots(N, S, [&](int64_t s) { row[s] = score(z[s]) * score.share; });
      gates<T>(a, t, z, score);
    }
    __syncthreads();
    const int live = static_cast<int>(end - base < blockDim.y ? end - base : blockDim.y);
    add_rows(shared, stride, live, S, base == begin, a.partial + blockIdx.x * S);
    __syncthreads();
  }
}

}  // namespace

void router_forward(const RouterForward& a, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t parts = router_partials(a.tokens), stride = a.slots + a.rule.groups;
  const int64_t bytes = stride * int64_t{sizeof(float)};
  cuda_check(cudaMemsetAsync(a.count, 0, a.slots * sizeof(int64_t), on), "router_forward counts");
  if (parts > 0) {
    const unsigned warps = warps_for(bytes);
    const auto kernel = a.element == Element::Float32 ? forward<float> : forward<Bf16>;
    kernel<<<blocks(parts, 1), dim3(32, warps), warps * bytes, on>>>(a, stride);
    cuda_check(cudaGetLastError(), "router_forward launch");
  }
  sum_columns<<<blocks(a.slots, 32), dim3(32, 32), 0, on>>>(a.partial, parts, a.slots,
                                                            a.probability, a.slots);
  cuda_check(cudaGetLastError(), "router_forward sum launch");
}

}  // namespace moue::kernels::cuda
