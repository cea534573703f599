// Permutation, gather and combine on CUDA. Layout: chosen [T, K] in order of token, rows in order
// of slot. Launch: the counting sort gives each warp kPermuteChunk entries, which it counts per
// slot, scans over the warps and places in order (the warp-level multisplit of Ashkiani et al.,
// PPoPP 2016), so that equal slots stay in order without a sort; gather and combine take a block
// per row, packs of 16 bytes a thread.
#include "kernels/permute.h"

#include "kernels/cuda_check.h"

namespace moue::kernels::cuda {
namespace {

constexpr int kWarps = 8;         // of a block that sorts
constexpr int kColumns = 32;      // threads of a block along the columns or slots
constexpr int kRowGroups = 8;     // of gain_backward
constexpr int kChunkGroups = 32;  // of the scan over chunks

// Rows of all slots before `slot`, by a whole block.
__device__ int64_t rows_before(const int64_t* count, int64_t slot) {
  int64_t sum = 0;
  const int threads = blockDim.x * blockDim.y;
  for (int64_t s = threadIdx.y * blockDim.x + threadIdx.x; s < slot; s += threads) sum += count[s];
  return block_sum(sum);
}

// Calls f(entry, slot, lanes of the warp with the same slot) for the chunk's entries, 32 at a time;
// lanes behind the end take part with slot -1.
template <class F>
__device__ void walk_chunk(const Permute& a, int64_t chunk, F&& f) {
  const int64_t rows = a.tokens * a.chosen_per_token, begin = chunk * kPermuteChunk;
  for (int64_t at = begin; at < begin + kPermuteChunk && at < rows; at += 32) {
    const int64_t entry = at + threadIdx.x;
    const int slot = entry < rows ? a.chosen[entry] : -1;
    f(entry, slot, __match_any_sync(0xffffffffu, slot));
    __syncwarp();
  }
}

__global__ void count_chunks(const Permute a, int64_t chunks) {
  const int64_t chunk = blockIdx.x * int64_t{kWarps} + threadIdx.y;
  if (chunk >= chunks) return;
  int32_t* counts = a.partial + chunk * a.slots;
  for (int64_t s = threadIdx.x; s < a.slots; s += 32) counts[s] = 0;
  __syncwarp();
  walk_chunk(a, chunk, [&](int64_t, int slot, unsigned same) {
    if (slot >= 0 && __ffs(same) - 1 == static_cast<int>(threadIdx.x)) counts[slot] += __popc(same);
  });
}

// partial[chunk, s] becomes the first row of the chunk's entries of slot s. A block takes 32 slots,
// its rows of threads take runs of chunks.
__global__ void scan_chunks(const Permute a, int64_t chunks) {
  __shared__ int32_t totals[kChunkGroups][kColumns];
  __shared__ int32_t starts[kColumns];
  const int64_t first = blockIdx.x * int64_t{kColumns}, s = first + threadIdx.x;
  const int64_t before = rows_before(a.count, first);
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    int64_t start = before;
    for (int i = 0; i < kColumns && first + i < a.slots; ++i) {
      starts[i] = static_cast<int32_t>(start);
      start += a.count[first + i];
    }
  }
  const int64_t run = (chunks + kChunkGroups - 1) / kChunkGroups;
  const int64_t begin = threadIdx.y * run, end = begin + run < chunks ? begin + run : chunks;
  const bool mine = s < a.slots;
  int32_t total = 0;
  for (int64_t c = begin; mine && c < end; ++c) total += a.partial[c * a.slots + s];
  totals[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (!mine) return;
  int32_t next = starts[threadIdx.x];
  for (int y = 0; y < static_cast<int>(threadIdx.y); ++y) next += totals[y][threadIdx.x];
  for (int64_t c = begin; c < end; ++c) {
    int32_t& place = a.partial[c * a.slots + s];
    const int32_t counted = place;
    place = next;
    next += counted;
  }
}

__global__ void place_chunks(const Permute a, int64_t chunks) {
  const int64_t chunk = blockIdx.x * int64_t{kWarps} + threadIdx.y;
  if (chunk >= chunks) return;
  int32_t* next = a.partial + chunk * a.slots;
  const int lane = threadIdx.x;
  walk_chunk(a, chunk, [&](int64_t entry, int slot, unsigned same) {
    const int leader = __ffs(same) - 1;
    int32_t row = 0;
    if (slot >= 0 && lane == leader) {
      row = next[slot];
      next[slot] = row + __popc(same);
    }
    row = __shfl_sync(0xffffffffu, row, leader) + __popc(same & ((1u << lane) - 1u));
    if (slot < 0) return;
    a.token_of_row[row] = static_cast<int32_t>(entry / a.chosen_per_token);
    a.slot_of_row[row] = slot;
    a.row_of[entry] = row;
  });
}

// A gain's place in memory is known on the device alone.
template <bool kWhole, class T>
__device__ void load_gain(const T* gain, int64_t at, int64_t width, float (&to)[kPack<T>]) {
  if (kWhole && reinterpret_cast<uintptr_t>(gain) % 16 == 0)
    load_pack<kWhole>(gain, at, width, to);
  else
    load_pack<false>(gain, at, width, to);
}

template <class T>
__device__ const T* entry(const void* const* table, int32_t slot) {
  return table ? static_cast<const T*>(table[slot]) : nullptr;
}

template <class T, class X, bool kWhole>
__global__ void gather(const GatherRows a) {
  const int64_t row = blockIdx.x;
  const X* from = static_cast<const X*>(a.x) + a.token_of_row[row] * a.width;
  const T* gain = entry<T>(a.gain, a.slot_of_row[row]);
  const T* bias = entry<T>(a.bias, a.slot_of_row[row]);
  T* to = static_cast<T*>(a.rows) + row * a.width;
  for (int64_t at = threadIdx.x * kPack<T>; at < a.width; at += blockDim.x * kPack<T>) {
    float v[kPack<T>], g[kPack<T>];
    load_run<kWhole>(from, at, a.width, v);
    if (gain) {
      load_gain<kWhole>(gain, at, a.width, g);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) v[i] *= g[i];
    }
    if (bias) {
      load_gain<kWhole>(bias, at, a.width, g);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) v[i] += g[i];
    }
    store_pack<kWhole>(to, at, a.width, v);
  }
}

template <class T, class Out, bool kWhole>
__global__ void combine(const CombineRows a) {
  const int64_t token = blockIdx.x;
  const int32_t* row_of = a.row_of + token * a.chosen_per_token;
  Out* out = static_cast<Out*>(a.out) + token * a.width;
  for (int64_t at = threadIdx.x * kPack<T>; at < a.width; at += blockDim.x * kPack<T>) {
    float sum[kPack<T>] = {};
    for (int64_t k = 0; k < a.chosen_per_token; ++k) {
      const int64_t row = row_of[k];
      const T* gain = entry<T>(a.gain, a.slot_of_row[row]);
      float v[kPack<T>], g[kPack<T>];
      load_pack<kWhole>(static_cast<const T*>(a.rows) + row * a.width, at, a.width, v);
      if (gain) load_gain<kWhole>(gain, at, a.width, g);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) sum[i] += gain ? g[i] * v[i] : v[i];
    }
    store_run<kWhole>(out, at, a.width, sum);
  }
}

// The threads of a column hold partial sums of one pack; their total goes to out [slots, width].
template <class T>
__device__ void store_total(float (&sums)[kRowGroups][kColumns * kPack<T> + 1],
                            const float (&sum)[kPack<T>], float* out, int64_t first,
                            int64_t width) {
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) sums[threadIdx.y][threadIdx.x * kPack<T> + i] = sum[i];
  __syncthreads();
  const int thread = threadIdx.y * kColumns + threadIdx.x;
  if (thread >= kColumns * kPack<T> || first + thread >= width) return;
  float total = 0;
  for (int y = 0; y < kRowGroups; ++y) total += sums[y][thread];
  out[first + thread] = total;
}

// A block: 32 packs of columns of one slot; its 8 rows of threads take every eighth row of the slot
// and are then added in order.
template <class T, class X, bool kWhole>
__global__ void gain_sums(const GainBackward a) {
  __shared__ float sums[kRowGroups][kColumns * kPack<T> + 1];
  const int64_t slot = blockIdx.y, begin = rows_before(a.count, slot), end = begin + a.count[slot];
  const int64_t first = blockIdx.x * int64_t{kColumns * kPack<T>};
  const int64_t at = first + threadIdx.x * kPack<T>;
  float sum[kPack<T>] = {}, plain[kPack<T>] = {};
  if (at < a.width) {
#pragma unroll 2
    for (int64_t row = begin + threadIdx.y; row < end; row += kRowGroups) {
      float d[kPack<T>], v[kPack<T>];
      load_pack<kWhole>(static_cast<const T*>(a.drows) + row * a.width, at, a.width, d);
      load_run<kWhole>(static_cast<const X*>(a.x) + a.token_of_row[row] * a.width, at, a.width, v);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) {
        sum[i] += d[i] * v[i];
        plain[i] += d[i];
      }
    }
  }
  store_total<T>(sums, sum, a.dgain + slot * a.width, first, a.width);
  if (a.dbias) store_total<T>(sums, plain, a.dbias + slot * a.width, first, a.width);
}

// Calls f with the device types of the rows and of the other side, which may be float32.
template <class F>
void with_sides(Element rows, Element other, int64_t width, std::initializer_list<const void*> all,
                F&& f) {
  with_packs(rows, width, all, [&](auto tag, auto whole) {
    if (rows == other)
      f(tag, tag, whole);
    else
      f(tag, float{}, whole);
  });
}

__global__ void scatter(const float* from, const int32_t* row_of, float* to, int64_t size) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i < size) to[row_of[i]] = from[i];
}

__global__ void fetch(const float* from, const int32_t* row_of, float* to, int64_t size) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i < size) to[i] = from[row_of[i]];
}

}  // namespace

void permute(const Permute& a, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t chunks = permute_partials(a.tokens * a.chosen_per_token);
  if (chunks == 0) return;
  const dim3 warps(32, kWarps);
  count_chunks<<<blocks(chunks, kWarps), warps, 0, on>>>(a, chunks);
  cuda_check(cudaGetLastError(), "permute count launch");
  scan_chunks<<<blocks(a.slots, kColumns), dim3(kColumns, kChunkGroups), 0, on>>>(a, chunks);
  cuda_check(cudaGetLastError(), "permute scan launch");
  place_chunks<<<blocks(chunks, kWarps), warps, 0, on>>>(a, chunks);
  cuda_check(cudaGetLastError(), "permute place launch");
}

void gather_rows(const GatherRows& a, void* stream) {
  if (a.num_rows == 0) return;
  with_sides(a.element, a.x_element, a.width, {a.x, a.rows}, [&](auto tag, auto side, auto whole) {
    using T = decltype(tag);
    gather<T, decltype(side), decltype(whole)::value>
        <<<blocks(a.num_rows, 1), row_threads(ceil_div(a.width, kPack<T>)), 0,
           static_cast<cudaStream_t>(stream)>>>(a);
  });
  cuda_check(cudaGetLastError(), "gather_rows launch");
}

void combine_rows(const CombineRows& a, void* stream) {
  if (a.tokens == 0) return;
  with_sides(a.element, a.out_element, a.width, {a.rows, a.out},
             [&](auto tag, auto side, auto whole) {
               using T = decltype(tag);
               combine<T, decltype(side), decltype(whole)::value>
                   <<<blocks(a.tokens, 1), row_threads(ceil_div(a.width, kPack<T>)), 0,
                      static_cast<cudaStream_t>(stream)>>>(a);
             });
  cuda_check(cudaGetLastError(), "combine_rows launch");
}

void gain_backward(const GainBackward& a, void* stream) {
  with_sides(a.element, a.x_element, a.width, {a.drows, a.x}, [&](auto tag, auto side, auto whole) {
    using T = decltype(tag);
    const dim3 grid(blocks(a.width, kColumns * kPack<T>), static_cast<unsigned>(a.slots));
    gain_sums<T, decltype(side), decltype(whole)::value>
        <<<grid, dim3(kColumns, kRowGroups), 0, static_cast<cudaStream_t>(stream)>>>(a);
  });
  cuda_check(cudaGetLastError(), "gain_backward launch");
}

void to_rows(const float* by_token, const int32_t* row_of, float* by_row, int64_t num_rows,
             void* stream) {
  if (num_rows == 0) return;
  scatter<<<blocks(num_rows, 256), 256, 0, static_cast<cudaStream_t>(stream)>>>(by_token, row_of,
                                                                                by_row, num_rows);
  cuda_check(cudaGetLastError(), "to_rows launch");
}

void from_rows(const float* by_row, const int32_t* row_of, float* by_token, int64_t num_rows,
               void* stream) {
  if (num_rows == 0) return;
  fetch<<<blocks(num_rows, 256), 256, 0, static_cast<cudaStream_t>(stream)>>>(by_row, row_of,
                                                                              by_token, num_rows);
  cuda_check(cudaGetLastError(), "from_rows launch");
}

}  // namespace moue::kernels::cuda
