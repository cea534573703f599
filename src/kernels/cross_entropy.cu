// Cross-entropy on CUDA. Layout: rows of logits, overwritten. Launch: a block of 512 threads per
// row; one pass finds the largest logit and the sum of exponentials together, a second writes the
// gradient while the row is in cache. Idea: online softmax (Milakov, Gimelshein, arXiv 1805.02867),
// the fused classifier of llm.c.
#include "kernels/cross_entropy.h"

#include "kernels/cuda_check.h"

namespace moue::kernels::cuda {
namespace {

constexpr int kThreads = 512;
constexpr float kNone = -INFINITY;

__device__ float block_max(float x) {
  __shared__ float part[kThreads / 32];
  x = warp_max(x);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
  __syncthreads();
  return warp_max(threadIdx.x % 32 < blockDim.x / 32 ? part[threadIdx.x % 32] : kNone);
}

template <class T, bool kWhole>
__global__ void __launch_bounds__(kThreads)
    rows(T* logits, const int64_t* targets, float* loss, float scale, int64_t size) {
  const int64_t row = blockIdx.x, target = targets[row];
  T* x = logits + row * size;
  const bool counted = target >= 0;
  const float picked = counted ? load(x[target]) : 0.0f;
  float v[kPack<T>];
  float own_top = kNone, sum = 0;
  if (counted) {
    for (int64_t at = threadIdx.x * kPack<T>; at < size; at += blockDim.x * kPack<T>) {
      load_pack<kWhole>(x, at, size, v, kNone);
      float top = own_top;
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) top = fmaxf(top, v[i]);
      if (top > own_top) sum *= expf(own_top - top);
      own_top = top;
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) sum += v[i] == kNone ? 0.0f : expf(v[i] - top);
    }
  }
  const float top = block_max(own_top);
  if (own_top > kNone) sum *= expf(own_top - top);
  sum = block_sum(sum);  // its barriers also stand between reading `picked` and overwriting it
  if (threadIdx.x == 0) loss[row] = counted ? top + logf(sum) - picked : 0.0f;
  if (scale == 0) return;
  const float factor = scale / sum;
  for (int64_t at = threadIdx.x * kPack<T>; at < size; at += blockDim.x * kPack<T>) {
    load_pack<kWhole>(x, at, size, v);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      v[i] = !counted           ? 0.0f
             : at + i == target ? scale * (expf(picked - top) / sum - 1.0f)
                                : expf(v[i] - top) * factor;
    }
    store_pack<kWhole>(x, at, size, v);
  }
}

}  // namespace

void cross_entropy(const CrossEntropy& a, void* stream) {
  if (a.rows == 0) return;
  with_packs(a.element, a.vocabulary, {a.logits}, [&](auto tag, auto whole) {
    using T = decltype(tag);
    rows<T, decltype(whole)::value>
        <<<blocks(a.rows, 1), row_threads(ceil_div(a.vocabulary, kPack<T>), kThreads), 0,
           static_cast<cudaStream_t>(stream)>>>(static_cast<T*>(a.logits), a.target, a.loss,
                                                a.scale, a.vocabulary);
  });
  cuda_check(cudaGetLastError(), "cross_entropy launch");
}

}  // namespace moue::kernels::cuda
