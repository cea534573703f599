// The one helper of the CUDA sources: status checks; elements and rows in packs of 16 bytes; sums
// whose order is fixed.
#pragma once

#include <cuda_runtime.h>

namespace moue::kernels {

/// Throws moue::Error naming `what` unless the status is cudaSuccess.
void cuda_check(cudaError_t status, const char* what);

}  // namespace moue::kernels

#ifdef __CUDACC__  // what follows is for nvcc; cuda_check.cpp is plain C++
#include <cuda_bf16.h>

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "kernels/element.h"

namespace moue::kernels::cuda {

using Bf16 = __nv_bfloat16;

inline __device__ float load(float x) { return x; }
inline __device__ float load(Bf16 x) { return __bfloat162float(x); }
inline __device__ void store(float& to, float x) { to = x; }
inline __device__ void store(Bf16& to, float x) { to = __float2bfloat16_rn(x); }

/// Elements of 16 bytes: one load or store of a thread.
template <class T>
inline constexpr int kPack = 16 / sizeof(T);

/// Elements [at, at + kPack) of a row, `fill` behind its end. kWhole: rows are whole packs and lie
/// on 16 bytes. Both ways hand a thread the same elements, so that sums do not depend on alignment.
template <bool kWhole, class T>
__device__ void load_pack(const T* row, int64_t at, int64_t width, float (&to)[kPack<T>],
                          float fill = 0) {
  if constexpr (kWhole) {
    const uint4 bits = *reinterpret_cast<const uint4*>(row + at);
    const T* x = reinterpret_cast<const T*>(&bits);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) to[i] = load(x[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) to[i] = at + i < width ? load(row[at + i]) : fill;
  }
}

template <bool kWhole, class T>
__device__ void store_pack(T* row, int64_t at, int64_t width, const float (&from)[kPack<T>]) {
  if constexpr (kWhole) {
    uint4 bits;
    T* x = reinterpret_cast<T*>(&bits);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) store(x[i], from[i]);
    *reinterpret_cast<uint4*>(row + at) = bits;
  } else {
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      if (at + i < width) store(row[at + i], from[i]);
    }
  }
}

/// kCount elements as packs, whatever their type: for rows of two types side by side.
template <bool kWhole, int kCount, class T>
__device__ void load_run(const T* row, int64_t at, int64_t width, float (&to)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i += kPack<T>) {
    float pack[kPack<T>];
    load_pack<kWhole>(row, at + i, width, pack);
#pragma unroll
    for (int j = 0; j < kPack<T>; ++j) to[i + j] = pack[j];
  }
}

template <bool kWhole, int kCount, class T>
__device__ void store_run(T* row, int64_t at, int64_t width, const float (&from)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i += kPack<T>) {
    float pack[kPack<T>];
#pragma unroll
    for (int j = 0; j < kPack<T>; ++j) pack[j] = from[i + j];
    store_pack<kWhole>(row, at + i, width, pack);
  }
}

/// Sum over a warp; every lane gets the same bits.
template <class T>
__device__ T warp_sum(T x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

inline __device__ float warp_max(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

/// Sum over a block of whole warps; every thread gets the same bits.
template <class T>
__device__ T block_sum(T x) {
  __shared__ T part[32];
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  x = warp_sum(x);
  __syncthreads();
  if (thread % 32 == 0) part[thread / 32] = x;
  __syncthreads();
  return warp_sum(thread % 32 < blockDim.x * blockDim.y / 32 ? part[thread % 32] : T(0));
}

/// out[i] = sum over parts p of part[p * stride + i], in one order. Blocks of 32 columns by 32.
template <class T>
__global__ void sum_columns(const T* part, int64_t parts, int64_t stride, T* out, int64_t width) {
  __shared__ T sums[32][33];
  const int64_t column = blockIdx.x * int64_t{32} + threadIdx.x;
  T sum = 0;
  if (column < width) {
    for (int64_t p = threadIdx.y; p < parts; p += 32) sum += part[p * stride + column];
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
  T total = 0;
  for (int y = 0; y < 32; ++y) total += sums[y][threadIdx.x];
  out[column] = total;
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Blocks of a one-dimensional grid.
inline unsigned blocks(int64_t size, int64_t per_block) {
  return static_cast<unsigned>(ceil_div(size, per_block));
}

/// Threads for a row of `packs`: whole warps, `most` at most.
inline unsigned row_threads(int64_t packs, int64_t most = 256) {
  const int64_t wanted = ceil_div(packs, 32) * 32;
  return static_cast<unsigned>(wanted < most ? wanted : most);
}

inline bool on_16_bytes(std::initializer_list<const void*> pointers) {
  for (const void* p : pointers) {
    if (reinterpret_cast<uintptr_t>(p) % 16 != 0) return false;
  }
  return true;
}

/// Calls f(T{}, whole) with the device type behind `element`; whole is std::true_type where rows of
/// `width` elements are whole packs at aligned pointers.
template <class F>
void with_packs(Element element, int64_t width, std::initializer_list<const void*> pointers,
                F&& f) {
  const auto typed = [&](auto tag) {
    if (width % kPack<decltype(tag)> == 0 && on_16_bytes(pointers))
      f(tag, std::true_type{});
    else
      f(tag, std::false_type{});
  };
  if (element == Element::Float32)
    typed(float{});
  else
    typed(Bf16{});
}

}  // namespace moue::kernels::cuda
#endif
