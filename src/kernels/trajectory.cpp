// The trajectory state's input on the CPU: the reference.
#include "kernels/trajectory.h"

#include <algorithm>
#include <vector>

#include "kernels/rows.h"

namespace moue::kernels {

void trajectory_read(const TrajectoryRead& a, Where where) {
  if (where.cuda) return cuda::trajectory_read(a, where.stream);
  const int64_t K = a.chosen_per_token;
  for_rows(a.tokens, 256, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* read = a.read + t * a.dim;
      std::fill_n(read, a.dim, 0.0f);
      for (int64_t k = 0; k < K; ++k) {
        const float gate = a.gate[t * K + k];
        const float* key = a.key + a.chosen[t * K + k] * a.dim;
        for (int64_t i = 0; i < a.dim; ++i) read[i] += gate * key[i];
      }
    }
  });
}

void trajectory_read_backward(const TrajectoryReadBackward& a, Where where) {
  if (where.cuda) return cuda::trajectory_read_backward(a, where.stream);
  const int64_t K = a.chosen_per_token;
  for_rows(a.tokens, 256, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * K; i < end * K; ++i) {
      const float *dread = a.dread + i / K * a.dim, *key = a.key + a.chosen[i] * a.dim;
      float dot = 0;
      for (int64_t j = 0; j < a.dim; ++j) dot += dread[j] * key[j];
      a.dgate[i] = dot;
    }
  });
  std::vector<int64_t> start(a.slots + 1, 0);
  for (int64_t s = 0; s < a.slots; ++s) start[s + 1] = start[s] + a.count[s];
  for_rows(a.slots, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      float* dkey = a.dkey + s * a.dim;
      std::fill_n(dkey, a.dim, 0.0f);
      for (int64_t r = start[s]; r < start[s + 1]; ++r) {
        const float* dread = a.dread + a.token_of_row[r] * a.dim;
        for (int64_t j = 0; j < a.dim; ++j) dkey[j] += a.gate_rows[r] * dread[j];
      }
    }
  });
}

}  // namespace moue::kernels
