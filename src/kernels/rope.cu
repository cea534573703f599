// Rotary position embedding on CUDA. Layout: a token's heads lie together in x, a head's tokens in
// y. Launch: a block per token; a thread turns one pack of 16 bytes of a head's first half and its
// partner in the second. Idea: rotation and transposition in one pass, as in FlashAttention's
// rotary kernel.
#include "kernels/rope.h"

#include "kernels/cuda_check.h"

namespace moue::kernels::cuda {
namespace {

template <bool kWhole, class T>
__device__ void load_angles(const float* row, int64_t at, int64_t half, float (&to)[kPack<T>], T) {
#pragma unroll
  for (int i = 0; i < kPack<T>; i += kPack<float>) {
    float four[kPack<float>];
    load_pack<kWhole>(row, at + i, half, four);
#pragma unroll
    for (int j = 0; j < kPack<float>; ++j) to[i + j] = four[j];
  }
}

template <class T, bool kWhole>
__global__ void turn(const Rope a, int packs) {
  const int64_t row = blockIdx.x, batch = row / a.length, t = row % a.length;
  const int64_t half = a.channels / 2;
  const float sign = a.inverse ? -1.0f : 1.0f;
  for (int index = threadIdx.x; index < a.heads * packs; index += blockDim.x) {
    const int head = index / packs;
    const int64_t at = index % packs * kPack<T>;
    T* x = static_cast<T*>(a.x) + row * a.x_stride + head * a.channels;
    T* y = static_cast<T*>(a.y) + ((batch * a.heads + head) * a.length + t) * a.channels;
    const T* from = a.inverse ? y : x;
    T* to = a.inverse ? x : y;
    float first[kPack<T>], second[kPack<T>], c[kPack<T>], s[kPack<T>];
    load_pack<kWhole>(from, at, half, first);
    load_pack<kWhole>(from + half, at, half, second);
    load_angles<kWhole>(a.cosine + t * half, at, half, c, T{});
    load_angles<kWhole>(a.sine + t * half, at, half, s, T{});
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      const float u = first[i], v = second[i];
      first[i] = u * c[i] - sign * v * s[i];
      second[i] = v * c[i] + sign * u * s[i];
    }
    store_pack<kWhole>(to, at, half, first);
    store_pack<kWhole>(to + half, at, half, second);
  }
}

}  // namespace

void rope(const Rope& a, void* stream) {
  const int64_t half = a.channels / 2, tokens = a.batch * a.length;
  if (tokens * a.heads * half == 0) return;
  // A stride that is not whole packs counts as a row that is not.
  const int64_t shape = a.x_stride % 8 == 0 ? half : 1;
  with_packs(a.element, shape, {a.x, a.y, a.cosine, a.sine}, [&](auto tag, auto whole) {
    using T = decltype(tag);
    const int packs = static_cast<int>(ceil_div(half, kPack<T>));
    turn<T, decltype(whole)::value>
        <<<blocks(tokens, 1), row_threads(a.heads * packs), 0, static_cast<cudaStream_t>(stream)>>>(
            a, packs);
  });
  cuda_check(cudaGetLastError(), "rope launch");
}

}  // namespace moue::kernels::cuda
