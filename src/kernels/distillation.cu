// Distillation on CUDA. Layout: rows of logits of the student, overwritten, and of the teacher.
// Launch: a block of 512 threads per row; one pass over both rows finds the largest logits and the
// sums of exponentials, a second the divergence and the gradient while the rows are in cache.
#include "kernels/distillation.h"

#include "kernels/cuda_check.h"

namespace moue::kernels::cuda {
namespace {

constexpr int kThreads = 512;
constexpr float kNone = -INFINITY;

__device__ float block_max(float x) {
  __shared__ float part[kThreads / 32];
  x = warp_max(x);
  __syncthreads();  // of the call before
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
  __syncthreads();
  return warp_max(threadIdx.x % 32 < blockDim.x / 32 ? part[threadIdx.x % 32] : kNone);
}

// Sums of exponentials of a row so far, at two rates, beside the largest number so far.
struct Running {
  float top = kNone, plain = 0, rated = 0;

  template <int kCount>
  __device__ void add(const float (&v)[kCount], float rate) {
    float now = top;
#pragma unroll
    for (int i = 0; i < kCount; ++i) now = fmaxf(now, v[i]);
    move(now, rate);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (v[i] == kNone) continue;
      plain += expf(v[i] - top);
      rated += expf((v[i] - top) * rate);
    }
  }
  __device__ void move(float to, float rate) {
    if (to > top && top > kNone) {
      plain *= expf(top - to);
      rated *= expf((top - to) * rate);
    }
    top = fmaxf(top, to);
  }
  // Over the block; every thread gets the same.
  __device__ void join(float rate) {
    move(block_max(top), rate);
    plain = block_sum(plain);
    rated = block_sum(rated);
  }
};

struct Numbers {
  float scale, share, temperature;
};

template <class T, bool kWhole>
__global__ void __launch_bounds__(kThreads)
    rows(T* logits, const T* teachers, const int64_t* targets, float* loss, float* divergence,
         Numbers n, int64_t size) {
  const int64_t row = blockIdx.x, target = targets[row];
  T* x = logits + row * size;
  const T* teacher = teachers + row * size;
  const bool counted = target >= 0;
  const float rate = 1 / n.temperature, picked = counted ? load(x[target]) : 0.0f;
  float v[kPack<T>], w[kPack<T>];
  Running own, other;
  if (counted) {
    for (int64_t at = threadIdx.x * kPack<T>; at < size; at += blockDim.x * kPack<T>) {
      load_pack<kWhole>(x, at, size, v, kNone);
      load_pack<kWhole>(teacher, at, size, w, kNone);
      own.add(v, rate);
      other.add(w, rate);
    }
  }
  own.join(rate);  // its barriers also stand between reading `picked` and overwriting it
  other.join(rate);
  const float log_plain = logf(own.plain), log_q = logf(own.rated), log_p = logf(other.rated);
  const float hard = n.scale * (1 - n.share), soft = n.scale * n.share * n.temperature;
  float sum = 0;
  for (int64_t at = threadIdx.x * kPack<T>; at < size; at += blockDim.x * kPack<T>) {
    load_pack<kWhole>(x, at, size, v);
    load_pack<kWhole>(teacher, at, size, w);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      const float p = (w[i] - other.top) * rate - log_p, q = (v[i] - own.top) * rate - log_q;
      if (counted && at + i < size) sum += expf(p) * (p - q);
      const float one = expf((v[i] - own.top) - log_plain) - (at + i == target ? 1.0f : 0.0f);
      v[i] = counted ? hard * one + soft * (expf(q) - expf(p)) : 0.0f;
    }
    if (n.scale != 0) store_pack<kWhole>(x, at, size, v);
  }
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  loss[row] = counted ? own.top + log_plain - picked : 0.0f;
  divergence[row] = counted ? n.temperature * n.temperature * sum : 0.0f;
}

}  // namespace

void distillation(const Distillation& a, void* stream) {
  const CrossEntropy& s = a.student;
  if (s.rows == 0) return;
  with_packs(s.element, s.vocabulary, {s.logits, a.teacher}, [&](auto tag, auto whole) {
    using T = decltype(tag);
    rows<T, decltype(whole)::value>
        <<<blocks(s.rows, 1), row_threads(ceil_div(s.vocabulary, kPack<T>), kThreads), 0,
           static_cast<cudaStream_t>(stream)>>>(
            static_cast<T*>(s.logits), static_cast<const T*>(a.teacher), s.target, s.loss,
            a.divergence, {s.scale, a.share, a.temperature}, s.vocabulary);
  });
  cuda_check(cudaGetLastError(), "distillation launch");
}

}  // namespace moue::kernels::cuda
