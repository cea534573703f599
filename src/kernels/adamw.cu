// AdamW on CUDA. Layout: four arrays side by side, 16 bytes of the narrowest a thread: four
// elements, or eight where any is bfloat16. Launch: 256 threads a block, as many blocks as it
// takes; the norm is one float64 partial sum per kSquaresBlock elements, then one block over the
// partials. Idea: one pass over 28 bytes per element (16 with bfloat16 weights and moments), as
// llm.c's adamw_kernel, which rounds stochastically too.
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
  Rounding rounding;
};

__device__ uint4 philox(const Rounding& r, uint64_t block) {
  uint4 c{static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), r.tensor, r.step};
  uint32_t low = static_cast<uint32_t>(r.key), high = static_cast<uint32_t>(r.key >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round, low += 0x9E3779B9u, high += 0xBB67AE85u) {
    c = {__umulhi(0xCD9E8D57u, c.z) ^ c.y ^ low, 0xCD9E8D57u * c.z,
         __umulhi(0xD2511F53u, c.x) ^ c.w ^ high, 0xD2511F53u * c.x};
  }
  return c;
}

// A number that T holds exactly, the next below or above in size.
template <class T>
__device__ float rounded(float x, uint32_t half) {
  if (sizeof(T) == sizeof(float) || x != x) return x;
  return __uint_as_float((__float_as_uint(x) + half) & 0xffff0000u);
}

__device__ float kept(const Constants& c, int64_t at) {
  const double decay = c.row_decay ? c.row_decay[at / c.row_size] : c.decay;
  return static_cast<float>(1.0 - c.lr * decay);
}

template <bool kWhole, class W, class M>
__global__ void update(W* master, const float* grad, M* m, M* v, int64_t size, Constants c) {
  constexpr bool kRounds = sizeof(W) != sizeof(float) || sizeof(M) != sizeof(float);
  constexpr int kCount = kRounds ? kPack<Bf16> : kPack<float>;
  const int64_t at = (blockIdx.x * int64_t{kThreads} + threadIdx.x) * kCount;
  if (at >= size) return;
  float w[kCount], g[kCount], first[kCount], second[kCount];
  load_run<kWhole>(master, at, size, w);
  load_run<kWhole>(grad, at, size, g);
  load_run<kWhole>(m, at, size, first);
  load_run<kWhole>(v, at, size, second);
  float keep = kept(c, at);
  [[maybe_unused]] uint4 words{};
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (!kWhole && c.row_decay && at + i < size) keep = kept(c, at + i);
    const float scaled = c.scale * g[i];
    first[i] = c.beta1 * first[i] + c.rest1 * scaled;
    second[i] = c.beta2 * second[i] + c.rest2 * scaled * scaled;
    w[i] = keep * w[i] - c.step * first[i] / (sqrtf(second[i]) * c.root + c.eps);
    if constexpr (kRounds) {
      const uint64_t element = c.rounding.first + static_cast<uint64_t>(at + i);
      const bool odd = element % 2 != 0;
      if (i == 0 || !odd) words = philox(c.rounding, element / 2);
      const uint32_t one = odd ? words.z : words.x, other = odd ? words.w : words.y;
      w[i] = rounded<W>(w[i], one & 0xffffu);
      first[i] = rounded<M>(first[i], one >> 16);
      second[i] = rounded<M>(second[i], other & 0xffffu);
    }
  }
  store_run<kWhole>(master, at, size, w);
  store_run<kWhole>(m, at, size, first);
  store_run<kWhole>(v, at, size, second);
}

template <class W, class M>
void launch(const AdamwArgs& a, const Constants& c, cudaStream_t stream) {
  constexpr int64_t kCount = sizeof(W) + sizeof(M) < 2 * sizeof(float) ? kPack<Bf16> : kPack<float>;
  const bool whole = a.size % kCount == 0 && (!a.row_decay || a.row_size % kCount == 0) &&
                     on_16_bytes({a.master, a.grad, a.m, a.v});
  const auto kernel = whole ? update<true, W, M> : update<false, W, M>;
  kernel<<<blocks(a.size, kThreads * kCount), kThreads, 0, stream>>>(
      static_cast<W*>(a.master), a.grad, static_cast<M*>(a.m), static_cast<M*>(a.v), a.size, c);
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
                    .row_size = a.row_size,
                    .rounding = a.rounding};
  const auto on = static_cast<cudaStream_t>(stream);
  const bool wide_weights = a.weights == Element::Float32;
  if (a.moments == Element::Float32)
    wide_weights ? launch<float, float>(a, c, on) : launch<Bf16, float>(a, c, on);
  else
    wide_weights ? launch<float, Bf16>(a, c, on) : launch<Bf16, Bf16>(a, c, on);
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
