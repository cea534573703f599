// SwiGLU on CUDA. Layout: a row of h is [gate, up]. Launch: a block per row, up to 256 threads,
// each taking packs of 16 bytes; the backward's row sum is a tree over the block. Idea: the gate of
// the router multiplies the activation, so that the expert's output need not be kept (SonicMoE,
// arXiv 2512.14080).
#include "kernels/swiglu.h"

#include "kernels/cuda_check.h"

namespace moue::kernels::cuda {
namespace {

template <class T, bool kWhole>
__global__ void forward(const T* h, const float* weight, T* out, int64_t width) {
  const int64_t row = blockIdx.x;
  h += row * 2 * width;
  out += row * width;
  const float scale = weight ? weight[row] : 1.0f;
  for (int64_t at = threadIdx.x * kPack<T>; at < width; at += blockDim.x * kPack<T>) {
    float g[kPack<T>], u[kPack<T>];
    load_pack<kWhole>(h, at, width, g);
    load_pack<kWhole>(h + width, at, width, u);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) g[i] = scale * (g[i] / (1.0f + expf(-g[i])) * u[i]);
    store_pack<kWhole>(out, at, width, g);
  }
}

template <class T, bool kWhole>
__global__ void backward(const T* h, const float* weight, const T* dout, T* dh, T* out,
                         float* dweight, int64_t width) {
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
      const float s = 1.0f / (1.0f + expf(-g[i])), silu = g[i] * s, up = u[i];
      dot += d[i] * (silu * up);
      g[i] = scale * d[i] * up * (s + silu * (1.0f - s));
      u[i] = scale * d[i] * silu;
      d[i] = scale * (silu * up);
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

void swiglu_forward(const SwigluForward& a, void* stream) {
  if (a.rows == 0) return;
  with_packs(a.element, a.width, {a.h, a.out}, [&](auto tag, auto whole) {
    using T = decltype(tag);
    forward<T, decltype(whole)::value>
        <<<blocks(a.rows, 1), row_threads(ceil_div(a.width, kPack<T>)), 0,
           static_cast<cudaStream_t>(stream)>>>(static_cast<const T*>(a.h), a.weight,
                                                static_cast<T*>(a.out), a.width);
  });
  cuda_check(cudaGetLastError(), "swiglu_forward launch");
}

void swiglu_backward(const SwigluBackward& a, void* stream) {
  if (a.rows == 0) return;
  with_packs(a.element, a.width, {a.h, a.dout, a.dh, a.out}, [&](auto tag, auto whole) {
    using T = decltype(tag);
    backward<T, decltype(whole)::value>
        <<<blocks(a.rows, 1), row_threads(ceil_div(a.width, kPack<T>)), 0,
           static_cast<cudaStream_t>(stream)>>>(
            static_cast<const T*>(a.h), a.weight, static_cast<const T*>(a.dout),
            static_cast<T*>(a.dh), static_cast<T*>(a.out), a.dweight, a.width);
  });
  cuda_check(cudaGetLastError(), "swiglu_backward launch");
}

}  // namespace moue::kernels::cuda
