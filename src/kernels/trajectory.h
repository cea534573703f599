// What a layer adds to the trajectory state: r[t] = sum over chosen of gate * key. docs/method.md
// section 5.
#pragma once

#include "kernels/element.h"

namespace moue::kernels {

/// gate [T, K], chosen [T, K] slots, key [S, dim] (keys of the layer's slots) -> read [T, dim].
/// float32.
struct TrajectoryRead {
  const float* gate;
  const int32_t* chosen;
  const float* key;
  float* read;
  int64_t tokens, chosen_per_token, dim;
};
void trajectory_read(const TrajectoryRead& a, Where where);

/// dgate [T, K] = dread . key; dkey [S, dim] = sum over the slot's rows, in order, of gate * dread
/// (overwritten). token_of_row, row_of, count: the permutation of permute.h; gate_rows [T * K] is
/// the gate by row.
struct TrajectoryReadBackward {
  const float* dread;
  const float* gate_rows;
  const int32_t* chosen;
  const float* key;
  const int32_t* token_of_row;
  const int64_t* count;
  float* dgate;
  float* dkey;
  int64_t tokens, chosen_per_token, slots, dim;
};
void trajectory_read_backward(const TrajectoryReadBackward& a, Where where);

namespace cuda {
void trajectory_read(const TrajectoryRead& a, void* stream);
void trajectory_read_backward(const TrajectoryReadBackward& a, void* stream);
}  // namespace cuda

}  // namespace moue::kernels
