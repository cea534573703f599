// The trajectory state's input on CUDA. Layout: keys [S, dim], states [T, dim], all float32.
// Launch: a thread per number read; backward a warp per (token, rank) for the gates, and a block
// per slot for the keys, whose 8 rows of threads take every eighth row and are then added in order.
#include "kernels/trajectory.h"

#include "kernels/cuda_check.h"

namespace moue::kernels::cuda {
namespace {

constexpr int kColumns = 32;
constexpr int kRowGroups = 8;

__global__ void read(const TrajectoryRead a) {
  const int64_t index = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  const int64_t token = index / a.dim, i = index % a.dim;
  if (token >= a.tokens) return;
  float sum = 0;
  for (int64_t k = token * a.chosen_per_token; k < (token + 1) * a.chosen_per_token; ++k) {
    sum += a.gate[k] * a.key[a.chosen[k] * a.dim + i];
  }
  a.read[index] = sum;
}

__global__ void gate_gradient(const TrajectoryReadBackward a) {
  const int64_t entry = blockIdx.x * int64_t{blockDim.y} + threadIdx.y;
  if (entry >= a.tokens * a.chosen_per_token) return;
  const float* dread = a.dread + entry / a.chosen_per_token * a.dim;
  const float* key = a.key + a.chosen[entry] * a.dim;
  float dot = 0;
  for (int64_t i = threadIdx.x; i < a.dim; i += 32) dot += dread[i] * key[i];
  dot = warp_sum(dot);
  if (threadIdx.x == 0) a.dgate[entry] = dot;
}

__global__ void key_gradient(const TrajectoryReadBackward a) {
  __shared__ float sums[kRowGroups][kColumns];
  const int64_t slot = blockIdx.y, i = blockIdx.x * int64_t{kColumns} + threadIdx.x;
  int64_t before = 0;
  for (int64_t s = threadIdx.y * kColumns + threadIdx.x; s < slot; s += kColumns * kRowGroups) {
    before += a.count[s];
  }
  const int64_t begin = block_sum(before), end = begin + a.count[slot];
  float sum = 0;
  if (i < a.dim) {
#pragma unroll 4
    for (int64_t row = begin + threadIdx.y; row < end; row += kRowGroups) {
      sum += a.gate_rows[row] * a.dread[a.token_of_row[row] * a.dim + i];
    }
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || i >= a.dim) return;
  float total = 0;
  for (int y = 0; y < kRowGroups; ++y) total += sums[y][threadIdx.x];
  a.dkey[slot * a.dim + i] = total;
}

}  // namespace

void trajectory_read(const TrajectoryRead& a, void* stream) {
  if (a.tokens == 0) return;
  read<<<blocks(a.tokens * a.dim, 256), 256, 0, static_cast<cudaStream_t>(stream)>>>(a);
  cuda_check(cudaGetLastError(), "trajectory_read launch");
}

void trajectory_read_backward(const TrajectoryReadBackward& a, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t entries = a.tokens * a.chosen_per_token;
  if (entries > 0) {
    gate_gradient<<<blocks(entries, 8), dim3(32, 8), 0, on>>>(a);
    cuda_check(cudaGetLastError(), "trajectory_read_backward gate launch");
  }
  const dim3 grid(blocks(a.dim, kColumns), static_cast<unsigned>(a.slots));
  key_gradient<<<grid, dim3(kColumns, kRowGroups), 0, on>>>(a);
  cuda_check(cudaGetLastError(), "trajectory_read_backward key launch");
}

}  // namespace moue::kernels::cuda
