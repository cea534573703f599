// The router on CUDA. Layout: a token's slots in one row, home first. Launch: a warp per token, a
// block per kRouterTokens tokens, in rounds of up to 8 warps; a row of S numbers per warp in shared
// memory holds first the selection keys, then the probabilities, which the block adds to its
// partial sums in order of token. A closed model gives the source's bits: lanes walk home and
// foreign slots apart, so that the trees of sums over home slots depend on N alone and closed slots
// add +0 at the end. Idea: top-k by repeated warp maxima over order-preserving integers, as in
// RAFT's warp select; fused with softmax and counts as in Megatron-Core's fused router.
#include "kernels/router.h"

#include "kernels/cuda_check.h"

#include <cassert>

namespace moue::kernels::cuda {
namespace {

constexpr unsigned kAll = 0xffffffffu;
constexpr float kClosed = -INFINITY;
constexpr int64_t kSharedBytes = 48 * 1024;  // what a block may have without asking
constexpr uint32_t kTaken = 0;               // below the key of every open slot

// Calls f(slot) for the lane's slots of [begin, end), in the order every sum over them keeps.
template <class F>
__device__ void for_slots(int64_t begin, int64_t end, F&& f) {
  for (int64_t s = begin + threadIdx.x; s < end; s += 32) f(s);
}

// Larger keys give larger numbers; -0 and 0 are equal; NaN comes first.
__device__ uint32_t ordered(float key) {
  if (key != key) return 0xffffffffu;
  const uint32_t bits = __float_as_uint(key == 0.0f ? 0.0f : key);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
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

// What turns a logit into its probability: exp(z - top) * scale.
struct Softmax {
  float top, scale;
  __device__ float operator()(float z) const { return expf(z - top) * scale; }
};

__device__ Softmax softmax(const float* z, int64_t home, int64_t slots) {
  float top = kClosed, own = 0, foreign = 0;
  for_slots(0, home, [&](int64_t s) { top = fmaxf(top, z[s]); });
  for_slots(home, slots, [&](int64_t s) { top = fmaxf(top, z[s]); });
  top = warp_max(top);
  for_slots(0, home, [&](int64_t s) { own += expf(z[s] - top); });
  for_slots(home, slots, [&](int64_t s) { foreign += expf(z[s] - top); });
  return {top, 1.0f / (warp_sum(own) + warp_sum(foreign))};
}

template <class T>
__device__ void logits(const RouterForward& a, int64_t t, float* z, uint32_t* keys) {
  const int64_t N = a.home_slots, S = a.slots;
  const T* home = static_cast<const T*>(a.home) + t * N;
  const T* foreign = static_cast<const T*>(a.foreign) + t * (S - N);
  const auto keep = [&](int64_t s, float value) {
    z[s] = value;
    keys[s] = value == kClosed ? kTaken : ordered(value + a.pool_bias[s]);
  };
  const auto bonus = [&](int64_t s) { return a.bonus ? a.bonus[t * S + s] : 0.0f; };
  for_slots(0, N, [&](int64_t s) {
    const float value = load(home[s]);
    keep(s, a.bonus ? value + bonus(s) : value);
  });
  for_slots(N, S, [&](int64_t s) {
    float value = load(foreign[s - N]) + a.beta[s - N];
    if (a.bonus) value += bonus(s);
    keep(s, a.log_visibility[s] == kClosed ? kClosed : value + a.log_visibility[s]);
  });
  __syncwarp();
}

__device__ void gates(const RouterForward& a, int64_t t, const float* z, const float* probability) {
  const int64_t K = a.chosen_per_token;
  const int32_t* chosen = a.chosen + t * K;
  const bool all = a.rule == RouterRule::SoftmaxAll;
  float top = kClosed, sum = 0;
  for_slots(0, K, [&](int64_t k) { top = fmaxf(top, z[chosen[k]]); });
  top = warp_max(top);
  for_slots(0, K, [&](int64_t k) { sum += expf(z[chosen[k]] - top); });
  sum = warp_sum(sum);
  for_slots(0, K, [&](int64_t k) {
    const int32_t slot = chosen[k];
    const float gate = all ? probability[slot] : expf(z[slot] - top) / sum;
    a.gate[t * K + k] = gate;
    a.weight[t * K + k] = gate * (slot < a.home_slots ? 1.0f : a.scale[slot - a.home_slots]);
    atomicAdd(reinterpret_cast<unsigned long long*>(a.count + slot), 1ull);
  });
}

// partial[i] += the rows' column i, row after row; the first round begins the sums.
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

template <class T>
__global__ void forward(const RouterForward a) {
  extern __shared__ float shared[];
  const int64_t S = a.slots, begin = blockIdx.x * kRouterTokens;
  const int64_t end = begin + kRouterTokens < a.tokens ? begin + kRouterTokens : a.tokens;
  float* row = shared + threadIdx.y * S;
  for (int64_t base = begin; base < end; base += blockDim.y) {
    const int64_t t = base + threadIdx.y;
    if (t < end) {
      float* z = a.z + t * S;
      uint32_t* keys = reinterpret_cast<uint32_t*>(row);
      logits<T>(a, t, z, keys);
      top_k(keys, S, a.chosen_per_token, a.chosen + t * a.chosen_per_token);
      const Softmax probability = softmax(z, a.home_slots, S);
      for_slots(0, a.home_slots, [&](int64_t s) { row[s] = probability(z[s]); });
      for_slots(a.home_slots, S, [&](int64_t s) { row[s] = probability(z[s]); });
      __syncwarp();
      gates(a, t, z, row);
    }
    __syncthreads();
    const int live = static_cast<int>(end - base < blockDim.y ? end - base : blockDim.y);
    add_rows(shared, S, live, S, base == begin, a.partial + blockIdx.x * S);
    __syncthreads();
  }
}

__device__ float gate_gradient(const RouterBackward& a, int64_t entry) {
  const int64_t slot = a.chosen[entry];
  const float scale = slot < a.home_slots ? 1.0f : a.scale[slot - a.home_slots];
  return (a.dgate ? a.dgate[entry] : 0.0f) + (a.dweight ? a.dweight[entry] * scale : 0.0f);
}

// The part of dz that comes through the probabilities of all slots.
__device__ void spread_gradient(const RouterBackward& a, int64_t t, float dot, float* dz) {
  const int64_t N = a.home_slots, S = a.slots;
  const bool all = a.rule == RouterRule::SoftmaxAll;
  if (!all && !a.balance) {
    for_slots(0, N, [&](int64_t s) { dz[s] = 0.0f; });
    for_slots(N, S, [&](int64_t s) { dz[s] = 0.0f; });
    return;
  }
  const float* z = a.z + t * S;
  const Softmax probability = softmax(z, N, S);
  double own = 0, foreign = 0;
  if (a.balance) {
    for_slots(0, N, [&](int64_t s) { own += double{probability(z[s])} * a.balance[s]; });
    for_slots(N, S, [&](int64_t s) { foreign += double{probability(z[s])} * a.balance[s]; });
  }
  const float mean = static_cast<float>(warp_sum(own) + warp_sum(foreign));
  const auto gradient = [&](int64_t s) {
    const float p = probability(z[s]);
    float value = all ? 0.0f - p * dot : 0.0f;
    if (a.balance) value += a.balance_scale * p * (a.balance[s] - mean);
    dz[s] = value;
  };
  for_slots(0, N, gradient);
  for_slots(N, S, gradient);
}

template <class T>
__device__ void backward_token(const RouterBackward& a, int64_t t, float* dz, float* dscale) {
  const int64_t N = a.home_slots, S = a.slots, K = a.chosen_per_token;
  float dot = 0;
  for_slots(t * K, (t + 1) * K, [&](int64_t i) { dot += a.gate[i] * gate_gradient(a, i); });
  dot = warp_sum(dot);
  spread_gradient(a, t, dot, dz);
  for_slots(N, S, [&](int64_t s) { dscale[s - N] = 0.0f; });
  __syncwarp();
  for_slots(t * K, (t + 1) * K, [&](int64_t i) {
    const int64_t slot = a.chosen[i];
    const float direct = gate_gradient(a, i) - (a.rule == RouterRule::SoftmaxChosen ? dot : 0.0f);
    dz[slot] += a.gate[i] * direct;
    if (slot >= N) dscale[slot - N] = (a.dweight ? a.dweight[i] : 0.0f) * a.gate[i];
  });
  __syncwarp();
  for_slots(0, N, [&](int64_t s) {
    a.dz[t * S + s] = dz[s];
    store(static_cast<T*>(a.dhome)[t * N + s], dz[s]);
  });
  for_slots(N, S, [&](int64_t s) {
    a.dz[t * S + s] = dz[s];
    store(static_cast<T*>(a.dforeign)[t * (S - N) + s - N], dz[s]);
  });
}

template <class T>
__global__ void backward(const RouterBackward a) {
  extern __shared__ float shared[];
  const int64_t S = a.slots, F = S - a.home_slots, begin = blockIdx.x * kRouterTokens;
  const int64_t end = begin + kRouterTokens < a.tokens ? begin + kRouterTokens : a.tokens;
  float* dscale = shared + blockDim.y * S;
  float* partial = a.partial + blockIdx.x * 2 * F;
  for (int64_t base = begin; base < end; base += blockDim.y) {
    const int64_t t = base + threadIdx.y;
    if (t < end) backward_token<T>(a, t, shared + threadIdx.y * S, dscale + threadIdx.y * F);
    __syncthreads();
    const int live = static_cast<int>(end - base < blockDim.y ? end - base : blockDim.y);
    add_rows(dscale, F, live, F, base == begin, partial);
    add_rows(shared + a.home_slots, S, live, F, base == begin, partial + F);
    __syncthreads();
  }
}

// Warps of a block that has `bytes` of shared memory for each.
unsigned warps_for(int64_t bytes) {
  const int64_t warps = kSharedBytes / bytes;
  assert(warps > 0);
  return static_cast<unsigned>(warps < 8 ? warps : 8);
}

}  // namespace

void router_forward(const RouterForward& a, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t parts = router_partials(a.tokens), bytes = a.slots * int64_t{sizeof(float)};
  cuda_check(cudaMemsetAsync(a.count, 0, a.slots * sizeof(int64_t), on), "router_forward counts");
  if (parts > 0) {
    const unsigned warps = warps_for(bytes);
    const auto kernel = a.element == Element::Float32 ? forward<float> : forward<Bf16>;
    kernel<<<blocks(parts, 1), dim3(32, warps), warps * bytes, on>>>(a);
    cuda_check(cudaGetLastError(), "router_forward launch");
  }
  sum_columns<<<blocks(a.slots, 32), dim3(32, 32), 0, on>>>(a.partial, parts, a.slots,
                                                            a.probability, a.slots);
  cuda_check(cudaGetLastError(), "router_forward sum launch");
}

void router_backward(const RouterBackward& a, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t parts = router_partials(a.tokens), foreign = a.slots - a.home_slots;
  const int64_t bytes = (a.slots + foreign) * int64_t{sizeof(float)};
  if (parts > 0) {
    const unsigned warps = warps_for(bytes);
    const auto kernel = a.element == Element::Float32 ? backward<float> : backward<Bf16>;
    kernel<<<blocks(parts, 1), dim3(32, warps), warps * bytes, on>>>(a);
    cuda_check(cudaGetLastError(), "router_backward launch");
  }
  if (foreign == 0) return;
  const dim3 block(32, 32);
  sum_columns<<<blocks(foreign, 32), block, 0, on>>>(a.partial, parts, 2 * foreign, a.dscale,
                                                     foreign);
  sum_columns<<<blocks(foreign, 32), block, 0, on>>>(a.partial + foreign, parts, 2 * foreign,
                                                     a.dbeta, foreign);
  cuda_check(cudaGetLastError(), "router_backward sum launch");
}

}  // namespace moue::kernels::cuda
