// The router on CUDA, backward. Launch as forward; a warp's row in shared memory gathers dz, a
// second one of its foreign slots the gradient of a.
#include "kernels/router.h"

#include "kernels/router_device.cuh"

namespace moue::kernels::cuda {
namespace {

__device__ float gate_gradient(const RouterBackward& a, int64_t entry) {
  const int64_t slot = a.chosen[entry];
  const float scale = slot < a.home_slots ? 1.0f : a.scale[slot - a.home_slots];
  return (a.dgate ? a.dgate[entry] : 0.0f) +
         (a.dweight ? a.dweight[entry] * a.rule.scale * scale : 0.0f);
}

// dz = the balance loss's gradient.
__device__ void balance_gradient(const RouterBackward& a, const float* z, const Scores& score,
                                 float* dz) {
  const int64_t N = a.home_slots, S = a.slots;
  const auto weighted = [&](int64_t s) { return double{score(z[s]) * score.share} * a.balance[s]; };
  const float mean = static_cast<float>(sum_slots<double>(N, S, weighted));
  for_all_slots(N, S, [&](int64_t s) {
    const float value = score(z[s]);
    const float gradient = a.balance_scale * (value * score.share) * (a.balance[s] - mean);
    dz[s] = score.by_sigmoid ? gradient * (1.0f - value) : gradient;
  });
}

// Whether moving one logit moves the gates of all: the denominator over all slots stays.
__device__ bool spreads(const RouterRule& rule) {
  return rule.score == Score::Softmax && (!rule.renormalise || rule.norm_eps != 0);
}

template <class T>
__device__ void sparse_backward(const RouterBackward& a, int64_t t, const float* z, float* dz) {
  const int64_t N = a.home_slots, S = a.slots, K = a.chosen_per_token;
  const int32_t* chosen = a.chosen + t * K;
  for (int64_t k = 0; k < K; ++k) {
    const Near<T> near{a.rule, z, chosen, k};
    const Softmax probability = softmax(N, S, near);
    const float direct = a.gate[t * K + k] * gate_gradient(a, t * K + k);
    for_all_slots(N, S, [&](int64_t s) {
      dz[s] += (s == chosen[k] ? direct : 0.0f) - probability(near(s)) * direct;
    });
  }
}

// As on the CPU: e_k = gate_k (dgate_k - sum_j gate_j dgate_j (s_k / norm)^(p-1)), dL/ds_k = e_k /
// s_k.
template <class T>
__device__ void gates_backward(const RouterBackward& a, int64_t t, const float* z,
                               const Scores& score, float* dz) {
  const int64_t N = a.home_slots, S = a.slots, K = a.chosen_per_token;
  const int32_t* chosen = a.chosen + t * K;
  const bool powered = has_norm(a.rule);
  const float below = powered ? norm<T>(a.rule, score, z, chosen, K, false) : 1.0f;
  float dot = 0, sum = 0;
  for_slots(t * K, (t + 1) * K, [&](int64_t i) { dot += a.gate[i] * gate_gradient(a, i); });
  dot = warp_sum(dot);
  for_slots(0, K, [&](int64_t k) {
    const float value = z[chosen[k]];
    float back = a.rule.score == Score::Chosen || a.rule.renormalise ? dot : 0.0f;
    if (powered) back *= powf(score(value) / below, a.rule.norm_power - 1);
    const float direct = a.gate[t * K + k] * (gate_gradient(a, t * K + k) - back);
    dz[chosen[k]] += score.by_sigmoid ? direct * (1.0f - score(value)) : direct;
    sum += direct;
  });
  sum = warp_sum(sum);
  __syncwarp();
  if (!spreads(a.rule)) return;
  for_all_slots(N, S, [&](int64_t s) { dz[s] -= score(z[s]) * sum; });
}

template <class T>
__device__ void backward_token(const RouterBackward& a, int64_t t, float* dz, float* dscale) {
  const int64_t N = a.home_slots, S = a.slots, K = a.chosen_per_token;
  const float* z = a.z + t * S;
  Scores score{};
  if (a.balance || a.rule.score == Score::Sigmoid || spreads(a.rule) || has_norm(a.rule))
    score = scores(a.rule, z, N, S);
  if (a.balance)
    balance_gradient(a, z, score, dz);
  else
    for_all_slots(N, S, [&](int64_t s) { dz[s] = 0.0f; });
  for_slots(N, S, [&](int64_t s) { dscale[s - N] = 0.0f; });
  __syncwarp();
  if (a.rule.score == Score::Sparse)
    sparse_backward<T>(a, t, z, dz);
  else
    gates_backward<T>(a, t, z, score, dz);
  for_slots(t * K, (t + 1) * K, [&](int64_t i) {
    const int64_t slot = a.chosen[i];
    if (slot >= N && a.dweight) dscale[slot - N] = a.dweight[i] * a.rule.scale * a.gate[i];
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

}  // namespace

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
