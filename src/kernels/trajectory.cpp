// The trajectory state's input on the CPU: the reference.
#include "kernels/trajectory.h"

#include <algorithm>
#include <vector>

#include "kernels/rows.h"

namespace moue::kernels {
namespace {

MOUE_CLONES void add_scaled(const float* x, float scale, float* sum, int64_t size) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) sum[i] += scale * x[i];
}

MOUE_CLONES float dot(const float* x, const float* y, int64_t size) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < size; ++i) sum += x[i] * y[i];
  return sum;
}

}  // namespace

void trajectory_read(const TrajectoryRead& a, Where where) {
  if (where.cuda) return cuda::trajectory_read(a, where.stream);
  const int64_t K = a.chosen_per_token;
  for_rows(a.tokens, 256, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* read = a.read + t * a.dim;
      std::fill_n(read, a.dim, 0.0f);
      for (int64_t k = 0; k < K; ++k) {
        add_scaled(a.key + a.chosen[t * K + k] * a.dim, a.gate[t * K + k], read, a.dim);
      }
    }
  });
}

void trajectory_read_backward(const TrajectoryReadBackward& a, Where where) {
  if (where.cuda) return cuda::trajectory_read_backward(a, where.stream);
  const int64_t K = a.chosen_per_token;
  for_rows(a.tokens, 256, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * K; i < end * K; ++i) {
      a.dgate[i] = dot(a.dread + i / K * a.dim, a.key + a.chosen[i] * a.dim, a.dim);
    }
  });
  std::vector<int64_t> start(a.slots + 1, 0);
  for (int64_t s = 0; s < a.slots; ++s) start[s + 1] = start[s] + a.count[s];
  for_rows(a.slots, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      float* dkey = a.dkey + s * a.dim;
      std::fill_n(dkey, a.dim, 0.0f);
      for (int64_t r = start[s]; r < start[s + 1]; ++r) {
        add_scaled(a.dread + a.token_of_row[r] * a.dim, a.gate_rows[r], dkey, a.dim);
      }
    }
  });
}

}  // namespace moue::kernels
