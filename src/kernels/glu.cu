// Gated linear units on CUDA. Layout: a row of h is [gate, up]. Launch: a block per row, up to 256
// threads, each taking packs of 16 bytes; the backward's row sum is a tree over the block. Idea:
// the gate of the router multiplies the activation, so that the expert's output need not be kept
// (SonicMoE, arXiv 2512.14080).
#include "kernels/glu.h"

#include "kernels/cuda_check.h"

namespace moue::kernels::cuda {
namespace {

// NaN stays NaN, which fminf and fmaxf would swallow.
inline __device__ float at_most(float x, float limit) { return x > limit ? limit : x; }
inline __device__ float at_least(float x, float limit) { return x < limit ? limit : x; }

template <class T, bool kWhole>
__global__ void forward(const T* h, const float* weight, T* out, int64_t width, GluRule rule) {
  const int64_t row = blockIdx.x;
  h += row * 2 * width;
  out += row * width;
  const float scale = weight ? weight[row] : 1.0f;
  for (int64_t at = threadIdx.x * kPack<T>; at < width; at += blockDim.x * kPack<T>) {
    float g[kPack<T>], u[kPack<T>];
    load_pack<kWhole>(h, at, width, g);
    load_pack<kWhole>(h + width, at, width, u);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      const float gate = at_most(g[i], rule.limit);
      const float up = at_least(at_most(u[i], rule.limit), -rule.limit);
      g[i] = scale * ((up + rule.shift) * (gate / (1.0f + expf(-rule.alpha * gate))));
    }
    store_pack<kWhole>(out, at, width, g);
  }
}

template <class T, bool kWhole>
__global__ void backward(const T* h, const float* weight, const T* dout, T* dh, T* out,
                         float* dweight, int64_t width, GluRule rule) {
  const int64_t row = blockIdx.x;
  h += row * 2 * width;
  dh += row * 2 * width;
  dout += row * width;
  out += row * width;
  const float scale = weight ? weight[row] : 1.0f;
  float dot = 0;
  for (int64_t at = threadIdx.x * kPack<T>; at < width; at += blockDim.x * kPack<T>) {
    float g[kPack<T>], u[kPack<T>], d[kPack<T>];
    load_pack<kWhole>(h, at, width, g);
    load_pack<kWhole>(h + width, at, width, u);
    load_pack<kWhole>(dout, at, width, d);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      const bool gate_free = !(g[i] > rule.limit);
      const bool up_free = !(u[i] > rule.limit || u[i] < -rule.limit);
      const float gate = at_most(g[i], rule.limit);
      const float up = at_least(at_most(u[i], rule.limit), -rule.limit) + rule.shift;
      const float s = 1.0f / (1.0f + expf(-rule.alpha * gate));
      const float half = gate * s, value = up * half;
      dot += d[i] * value;
      g[i] = gate_free ? scale * d[i] * up * (s + rule.alpha * half * (1.0f - s)) : 0.0f;
      u[i] = up_free ? scale * d[i] * half : 0.0f;
      d[i] = scale * value;
    }
    store_pack<kWhole>(dh, at, width, g);
    store_pack<kWhole>(dh + width, at, width, u);
    store_pack<kWhole>(out, at, width, d);
  }
  if (!dweight) return;
  dot = block_sum(dot);
  if (threadIdx.x == 0) dweight[row] = dot;
}

}  // namespace

void glu_forward(const GluForward& a, void* stream) {
  if (a.rows == 0) return;
  with_packs(a.element, a.width, {a.h, a.out}, [&](auto tag, auto whole) {
    using T = decltype(tag);
    forward<T, decltype(whole)::value>
        <<<blocks(a.rows, 1), row_threads(ceil_div(a.width, kPack<T>)), 0,
           static_cast<cudaStream_t>(stream)>>>(static_cast<const T*>(a.h), a.weight,
                                                static_cast<T*>(a.out), a.width, a.rule);
  });
  cuda_check(cudaGetLastError(), "glu_forward launch");
}

void glu_backward(const GluBackward& a, void* stream) {
  if (a.rows == 0) return;
  with_packs(a.element, a.width, {a.h, a.dout, a.dh, a.out}, [&](auto tag, auto whole) {
    using T = decltype(tag);
    backward<T, decltype(whole)::value>
        <<<blocks(a.rows, 1), row_threads(ceil_div(a.width, kPack<T>)), 0,
           static_cast<cudaStream_t>(stream)>>>(
            static_cast<const T*>(a.h), a.weight, static_cast<const T*>(a.dout),
            static_cast<T*>(a.dh), static_cast<T*>(a.out), a.dweight, a.width, a.rule);
  });
  cuda_check(cudaGetLastError(), "glu_backward launch");
}

}  // namespace moue::kernels::cuda
