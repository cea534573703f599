// RMSNorm on CUDA. Layout: rows lie together, a thread takes packs of 16 bytes. Launch: a warp per
// row up to 1024 elements (8 rows a block), else a block of 256; the gain's gradient is a second
// pass over columns, kRmsNormRows rows to a partial sum, then a sum over the partials. Idea:
// llm.c's layernorm_forward_kernel3 and layernorm_backward without its atomics.
#include "kernels/rms_norm.h"

#include "kernels/cuda_check.h"

namespace moue::kernels::cuda {
namespace {

template <int kThreads>
__device__ float row_sum(float x) {
  if constexpr (kThreads == 32)
    return warp_sum(x);
  else
    return block_sum(x);
}

template <class T, bool kWhole, int kThreads>
__global__ void forward(const T* x, const T* gain, T* out, float* rstd, int64_t rows, int64_t width,
                        float eps) {
  const int64_t row = blockIdx.x * int64_t{blockDim.y} + threadIdx.y;
  if (row >= rows) return;
  x += row * width;
  out += row * width;
  float v[kPack<T>], g[kPack<T>];
  float sum = 0;
  for (int64_t at = threadIdx.x * kPack<T>; at < width; at += kThreads * kPack<T>) {
    load_pack<kWhole>(x, at, width, v);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) sum += v[i] * v[i];
  }
  const float r = 1.0f / sqrtf(row_sum<kThreads>(sum) / static_cast<float>(width) + eps);
  if (threadIdx.x == 0) rstd[row] = r;
  for (int64_t at = threadIdx.x * kPack<T>; at < width; at += kThreads * kPack<T>) {
    load_pack<kWhole>(x, at, width, v);
    if (gain) load_pack<kWhole>(gain, at, width, g);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      T rounded;
      store(rounded, v[i] * r);
      v[i] = gain ? g[i] * load(rounded) : load(rounded);
    }
    store_pack<kWhole>(out, at, width, v);
  }
}

// dx = r * (w - xhat * mean(w * xhat)), w = dout * gain, xhat = x * r
template <class T, bool kWhole, int kThreads>
__global__ void backward(const T* x, const T* gain, const T* dout, const float* rstd, T* dx,
                         int64_t rows, int64_t width) {
  const int64_t row = blockIdx.x * int64_t{blockDim.y} + threadIdx.y;
  if (row >= rows) return;
  x += row * width;
  dout += row * width;
  dx += row * width;
  float v[kPack<T>], d[kPack<T>], g[kPack<T>];
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) g[i] = 1.0f;
  float dot = 0;
  for (int64_t at = threadIdx.x * kPack<T>; at < width; at += kThreads * kPack<T>) {
    load_pack<kWhole>(x, at, width, v);
    load_pack<kWhole>(dout, at, width, d);
    if (gain) load_pack<kWhole>(gain, at, width, g);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) dot += d[i] * g[i] * v[i];
  }
  const float r = rstd[row];
  const float mean = row_sum<kThreads>(dot) * r * r / static_cast<float>(width);
  for (int64_t at = threadIdx.x * kPack<T>; at < width; at += kThreads * kPack<T>) {
    load_pack<kWhole>(x, at, width, v);
    load_pack<kWhole>(dout, at, width, d);
    if (gain) load_pack<kWhole>(gain, at, width, g);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) d[i] = r * (d[i] * g[i] - v[i] * mean);
    store_pack<kWhole>(dx, at, width, d);
  }
}

// One thread: one pack of columns of one partial sum.
template <class T, bool kWhole>
__global__ void gain_partials(const T* x, const T* dout, const float* rstd, float* partial,
                              int64_t rows, int64_t width) {
  const int64_t packs = (width + kPack<T> - 1) / kPack<T>;
  const int64_t index = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  const int64_t part = index / packs, at = index % packs * kPack<T>;
  const int64_t begin = part * kRmsNormRows;
  if (begin >= rows) return;
  const int64_t end = begin + kRmsNormRows < rows ? begin + kRmsNormRows : rows;
  float v[kPack<T>], d[kPack<T>], sum[kPack<T>] = {};
#pragma unroll 4
  for (int64_t row = begin; row < end; ++row) {
    load_pack<kWhole>(x + row * width, at, width, v);
    load_pack<kWhole>(dout + row * width, at, width, d);
    const float r = rstd[row];
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) sum[i] += d[i] * v[i] * r;
  }
  for (int i = 0; i < kPack<T> && at + i < width; ++i) partial[part * width + at + i] = sum[i];
}

constexpr int64_t kWarpWidth = 1024;  // wider rows take a block

dim3 row_block(int64_t width) { return width <= kWarpWidth ? dim3(32, 8) : dim3(256, 1); }

}  // namespace

void rms_norm_forward(const RmsNormForward& a, void* stream) {
  if (a.rows == 0) return;
  const dim3 block = row_block(a.width);
  with_packs(a.element, a.width, {a.x, a.gain, a.out}, [&](auto tag, auto whole) {
    using T = decltype(tag);
    constexpr bool kWhole = decltype(whole)::value;
    const auto kernel = block.x == 32 ? forward<T, kWhole, 32> : forward<T, kWhole, 256>;
    kernel<<<blocks(a.rows, block.y), block, 0, static_cast<cudaStream_t>(stream)>>>(
        static_cast<const T*>(a.x), static_cast<const T*>(a.gain), static_cast<T*>(a.out), a.rstd,
        a.rows, a.width, a.eps);
  });
  cuda_check(cudaGetLastError(), "rms_norm_forward launch");
}

void rms_norm_backward(const RmsNormBackward& a, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t parts = rms_norm_partials(a.rows);
  const dim3 block = row_block(a.width);
  with_packs(a.element, a.width, {a.x, a.gain, a.dout, a.dx}, [&](auto tag, auto whole) {
    using T = decltype(tag);
    constexpr bool kWhole = decltype(whole)::value;
    if (a.rows == 0) return;
    const T *x = static_cast<const T*>(a.x), *dout = static_cast<const T*>(a.dout);
    const auto kernel = block.x == 32 ? backward<T, kWhole, 32> : backward<T, kWhole, 256>;
    kernel<<<blocks(a.rows, block.y), block, 0, on>>>(
        x, static_cast<const T*>(a.gain), dout, a.rstd, static_cast<T*>(a.dx), a.rows, a.width);
    cuda_check(cudaGetLastError(), "rms_norm_backward launch");
    if (!a.dgain) return;
    gain_partials<T, kWhole><<<blocks(parts * ceil_div(a.width, kPack<T>), 128), 128, 0, on>>>(
        x, dout, a.rstd, a.partial, a.rows, a.width);
    cuda_check(cudaGetLastError(), "rms_norm_backward gain launch");
  });
  if (!a.dgain) return;
  sum_columns<<<blocks(a.width, 32), dim3(32, 32), 0, on>>>(a.partial, parts, a.width, a.dgain,
                                                            a.width);
  cuda_check(cudaGetLastError(), "rms_norm_backward sum launch");
}

}  // namespace moue::kernels::cuda
