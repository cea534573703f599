// Tokens to experts and back: a stable counting sort by slot, gathers in both directions.
#pragma once

#include "kernels/element.h"

namespace moue::kernels {

/// Legend: T tokens, K chosen, S slots, R = T K rows, D width. Rows of one slot lie together, in
/// order of token.
struct Permute {
  const int32_t* chosen;  ///< [T, K]
  const int64_t* count;   ///< [S]
  int32_t* token_of_row;  ///< [R]
  int32_t* slot_of_row;   ///< [R]
  int32_t* row_of;        ///< [T, K], the inverse
  int32_t* partial;       ///< scratch on CUDA, permute_partials(T * K) * S; the CPU ignores it
  int64_t tokens, chosen_per_token, slots;
};
void permute(const Permute& a, Where where);
inline constexpr int64_t kPermuteChunk = 256;  ///< rows that one warp sorts on CUDA
int64_t permute_partials(int64_t rows);

/// rows[r] = gain[slot_of_row[r]] * x[token_of_row[r]] + bias[slot_of_row[r]], rounded once; rows
/// [R, D], x [T, D]. `gain` and `bias` are tables of S pointers to [D] (device memory on CUDA);
/// null tables: 1 and 0. x may be float32 where the rest is not.
struct GatherRows {
  Element element;
  Element x_element;
  const void* x;
  const void* const* gain;
  const void* const* bias;
  const int32_t* token_of_row;
  const int32_t* slot_of_row;
  void* rows;
  int64_t num_rows, width;
};
void gather_rows(const GatherRows& a, Where where);

/// out[t] = sum over ranks k, in order, of gain * rows[row_of[t, k]], summed in float32 and rounded
/// once. out [T, D], which may be float32 where the rest is not.
struct CombineRows {
  Element element;
  Element out_element;
  const void* rows;
  const void* const* gain;
  const int32_t* row_of;
  const int32_t* slot_of_row;
  void* out;
  int64_t tokens, chosen_per_token, width;
};
void combine_rows(const CombineRows& a, Where where);

/// dgain[s] = sum over rows r of slot s, in order, of drows[r] * x[token_of_row[r]], dbias[s] that
/// of drows[r] (null: not wanted); [S, D] float32. count [S] says how many rows each slot has. x
/// may be float32 where drows are not.
struct GainBackward {
  Element element;
  Element x_element;
  const void* drows;
  const void* x;
  const int32_t* token_of_row;
  const int64_t* count;
  float* dgain;
  float* dbias;
  int64_t slots, width;
};
void gain_backward(const GainBackward& a, Where where);

/// weight by (token, rank) to weight by row, and back.
void to_rows(const float* by_token, const int32_t* row_of, float* by_row, int64_t num_rows,
             Where where);
void from_rows(const float* by_row, const int32_t* row_of, float* by_token, int64_t num_rows,
               Where where);

namespace cuda {
void permute(const Permute& a, void* stream);
void gather_rows(const GatherRows& a, void* stream);
void combine_rows(const CombineRows& a, void* stream);
void gain_backward(const GainBackward& a, void* stream);
void to_rows(const float* by_token, const int32_t* row_of, float* by_row, int64_t num_rows,
             void* stream);
void from_rows(const float* by_row, const int32_t* row_of, float* by_token, int64_t num_rows,
               void* stream);
}  // namespace cuda

}  // namespace moue::kernels
