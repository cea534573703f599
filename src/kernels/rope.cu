// Rotary position embedding on CUDA. Layout: a token's heads lie together in x, a head's tokens in
// y. Launch: a block per token; a thread turns two packs of 16 bytes of a head: one of the first
// half and its partner in the second, or two in a row where pairs are interleaved; then the block
// copies the channels that do not turn. Idea: rotation and transposition in one pass, as in
// FlashAttention's rotary kernel.
#include "kernels/rope.h"

#include "kernels/cuda_check.h"

namespace moue::kernels::cuda {
namespace {

// v holds kPack pairs: (i, kPack + i), or (2i, 2i + 1) where interleaved.
template <class T, bool kInterleaved>
__device__ void turn_packs(float (&v)[2 * kPack<T>], const float (&c)[kPack<T>],
                           const float (&s)[kPack<T>], float sign) {
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) {
    float& first = v[kInterleaved ? 2 * i : i];
    float& second = v[kInterleaved ? 2 * i + 1 : kPack<T> + i];
    const float u = first, w = second;
    first = u * c[i] - sign * w * s[i];
    second = w * c[i] + sign * u * s[i];
  }
}

// Channels [begin, end) of every head of the token.
template <class T, bool kWhole>
__device__ void copy_channels(const Rope& a, const T* from, T* to, int64_t from_step,
                              int64_t to_step, int64_t begin, int64_t end) {
  const int packs = static_cast<int>((end - begin + kPack<T> - 1) / kPack<T>);
  for (int index = threadIdx.x; index < a.heads * packs; index += blockDim.x) {
    const int head = index / packs;
    const int64_t at = index % packs * kPack<T>;
    float v[kPack<T>];
    load_pack<kWhole>(from + head * from_step + begin, at, end - begin, v);
    store_pack<kWhole>(to + head * to_step + begin, at, end - begin, v);
  }
}

template <class T, bool kWhole, bool kInterleaved>
__global__ void turn(const Rope a, int packs) {
  const int64_t row = blockIdx.x, batch = row / a.length, t = row % a.length;
  const int64_t half = a.width / 2, head_step = a.length * a.channels;
  T* x = static_cast<T*>(a.x) + row * a.x_stride;
  T* y = static_cast<T*>(a.y) + (batch * a.heads * a.length + t) * a.channels;
  const T* from = a.inverse ? y : x;
  T* to = a.inverse ? x : y;
  const int64_t from_step = a.inverse ? head_step : a.channels,
                to_step = a.inverse ? a.channels : head_step;
  // Where the two packs of a thread lie, and where their run of channels ends.
  constexpr int64_t kStep = kInterleaved ? 2 : 1;
  const int64_t run = kInterleaved ? a.width : half;
  const int64_t partner = kInterleaved ? 0 : half, behind = kInterleaved ? kPack<T> : 0;
  for (int index = threadIdx.x; index < a.heads * packs; index += blockDim.x) {
    const int head = index / packs;
    const int64_t at = index % packs * kPack<T>;
    const T* source = from + head * from_step + a.begin;
    T* target = to + head * to_step + a.begin;
    float v[2 * kPack<T>], pack[kPack<T>], c[kPack<T>], s[kPack<T>];
    load_pack<kWhole>(source, kStep * at, run, pack);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) v[i] = pack[i];
    load_pack<kWhole>(source + partner, kStep * at + behind, run, pack);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) v[kPack<T> + i] = pack[i];
    load_run<kWhole>(a.cosine + t * half, at, half, c);
    load_run<kWhole>(a.sine + t * half, at, half, s);
    turn_packs<T, kInterleaved>(v, c, s, a.inverse ? -1.0f : 1.0f);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) pack[i] = v[i];
    store_pack<kWhole>(target, kStep * at, run, pack);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) pack[i] = v[kPack<T> + i];
    store_pack<kWhole>(target + partner, kStep * at + behind, run, pack);
  }
  if (a.begin > 0) copy_channels<T, kWhole>(a, from, to, from_step, to_step, 0, a.begin);
  if (a.begin + a.width < a.channels) {
    copy_channels<T, kWhole>(a, from, to, from_step, to_step, a.begin + a.width, a.channels);
  }
}

}  // namespace

void rope(const Rope& a, void* stream) {
  const int64_t half = a.width / 2, tokens = a.batch * a.length;
  if (tokens * a.heads * a.channels == 0) return;
  // A stride or a run of channels that is not whole packs counts as a row that is not.
  const bool whole = a.x_stride % 8 == 0 && a.begin % 8 == 0 && a.channels % 8 == 0;
  with_packs(a.element, whole ? half : 1, {a.x, a.y, a.cosine, a.sine}, [&](auto tag, auto packed) {
    using T = decltype(tag);
    constexpr bool kWhole = decltype(packed)::value;
    const int packs = static_cast<int>(ceil_div(half, kPack<T>));
    const auto kernel = a.interleaved ? turn<T, kWhole, true> : turn<T, kWhole, false>;
    kernel<<<blocks(tokens, 1), row_threads(a.heads * packs), 0,
             static_cast<cudaStream_t>(stream)>>>(a, packs);
  });
  cuda_check(cudaGetLastError(), "rope launch");
}

}  // namespace moue::kernels::cuda
