// AdamW on CUDA. Layout: four float32 arrays side by side, four elements a thread. Launch: 256
// threads a block, as many blocks as it takes; the norm is one float64 partial sum per
// kSquaresBlock elements, then one block over the partials. Idea: one pass over 28 bytes per
// element, as llm.c's adamw_kernel.
#include "kernels/adamw.h"

#include "kernels/cuda_check.h"

#include <cmath>

namespace moue::kernels::cuda {
namespace {

constexpr int kThreads = 256;

struct Constants {
  float beta1, beta2, rest1, rest2, scale, step, root, eps;
  double lr, decay;
  const float* row_decay;
  int64_t row_size;
};

__device__ float kept(const Constants& c, int64_t at) {
  const double decay = c.row_decay ? c.row_decay[at / c.row_size] : c.decay;
  return static_cast<float>(1.0 - c.lr * decay);
}

template <bool kWhole>
__global__ void update(float* master, const float* grad, float* m, float* v, int64_t size,
                       Constants c) {
  const int64_t at = (blockIdx.x * int64_t{kThreads} + threadIdx.x) * kPack<float>;
  if (at >= size) return;
  float w[kPack<float>], g[kPack<float>], first[kPack<float>], second[kPack<float>];
  load_pack<kWhole>(master, at, size, w);
  load_pack<kWhole>(grad, at, size, g);
  load_pack<kWhole>(m, at, size, first);
  load_pack<kWhole>(v, at, size, second);
  float keep = kept(c, at);
#pragma unroll
  for (int i = 0; i < kPack<float>; ++i) {
    if (!kWhole && c.row_decay && at + i < size) keep = kept(c, at + i);
    const float scaled = c.scale * g[i];
    first[i] = c.beta1 * first[i] + c.rest1 * scaled;
    second[i] = c.beta2 * second[i] + c.rest2 * scaled * scaled;
    w[i] = keep * w[i] - c.step * first[i] / (sqrtf(second[i]) * c.root + c.eps);
  }
  store_pack<kWhole>(master, at, size, w);
  store_pack<kWhole>(m, at, size, first);
  store_pack<kWhole>(v, at, size, second);
}

template <bool kWhole>
__global__ void square_partials(const float* x, int64_t size, double* partial) {
  const int64_t begin = blockIdx.x * kSquaresBlock;
  const int64_t end = begin + kSquaresBlock < size ? begin + kSquaresBlock : size;
  double sum = 0;
#pragma unroll 4
  for (int64_t at = begin + threadIdx.x * kPack<float>; at < end; at += kThreads * kPack<float>) {
    float v[kPack<float>];
    load_pack<kWhole>(x, at, size, v);
#pragma unroll
    for (int i = 0; i < kPack<float>; ++i) sum += static_cast<double>(v[i]) * v[i];
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void square_total(const double* partial, int64_t parts, double* result) {
  double sum = 0;
  for (int64_t p = threadIdx.x; p < parts; p += blockDim.x) sum += partial[p];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *result = sum;
}

}  // namespace

void adamw(const AdamwArgs& a, void* stream) {
  if (a.size == 0) return;
  const Constants c{.beta1 = static_cast<float>(a.beta1),
                    .beta2 = static_cast<float>(a.beta2),
                    .rest1 = static_cast<float>(1 - a.beta1),
                    .rest2 = static_cast<float>(1 - a.beta2),
                    .scale = static_cast<float>(a.scale),
                    .step = static_cast<float>(a.lr / a.bias1),
                    .root = static_cast<float>(1 / std::sqrt(a.bias2)),
                    .eps = static_cast<float>(a.eps),
                    .lr = a.lr,
                    .decay = a.decay,
                    .row_decay = a.row_decay,
                    .row_size = a.row_size};
  const bool whole = a.size % kPack<float> == 0 && (!a.row_decay || a.row_size % kPack<float> == 0);
  const auto kernel =
      whole && on_16_bytes({a.master, a.grad, a.m, a.v}) ? update<true> : update<false>;
  kernel<<<blocks(a.size, kThreads * kPack<float>), kThreads, 0,
           static_cast<cudaStream_t>(stream)>>>(a.master, a.grad, a.m, a.v, a.size, c);
  cuda_check(cudaGetLastError(), "adamw launch");
}

void sum_of_squares(const float* x, int64_t size, double* partial, double* result, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t parts = sum_of_squares_partials(size);
  if (parts > 0) {
    const auto kernel = size % kPack<float> == 0 && on_16_bytes({x}) ? square_partials<true>
                                                                     : square_partials<false>;
    kernel<<<blocks(parts, 1), kThreads, 0, on>>>(x, size, partial);
    cuda_check(cudaGetLastError(), "sum_of_squares launch");
  }
  square_total<<<1, 1024, 0, on>>>(partial, parts, result);
  cuda_check(cudaGetLastError(), "sum_of_squares total launch");
}

}  // namespace moue::kernels::cuda
