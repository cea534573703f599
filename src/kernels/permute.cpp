// Permutation, gather and combine on the CPU: the reference.
#include "kernels/permute.h"

#include <algorithm>
#include <vector>

#include "kernels/rows.h"

namespace moue::kernels {
namespace {

template <class T, class X>
MOUE_CLONES void scaled_copy(const X* x, const T* gain, const T* bias, T* out, int64_t width) {
  if constexpr (std::is_same_v<T, X>) {
    if (!gain && !bias) {
      std::copy_n(x, width, out);
      return;
    }
  }
  if (bias) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i)
      store(out[i], (gain ? load(gain[i]) : 1.0f) * load(x[i]) + load(bias[i]));
  } else {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) store(out[i], (gain ? load(gain[i]) : 1.0f) * load(x[i]));
  }
}

template <class T>
MOUE_CLONES void add_scaled(const T* x, const T* gain, float* sum, int64_t width) {
  if (gain) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) sum[i] += load(gain[i]) * load(x[i]);
  } else {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) sum[i] += load(x[i]);
  }
}

template <class T, class X>
MOUE_CLONES void add_product(const T* x, const X* y, float* sum, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) sum[i] += load(x[i]) * load(y[i]);
}

template <class T>
const T* entry(const void* const* table, int32_t slot) {
  return table ? static_cast<const T*>(table[slot]) : nullptr;
}

/// Calls f with values of the C++ types behind the rows and the other side, which may be float32.
template <class F>
void with_elements(Element rows, Element other, F&& f) {
  with_element(rows, [&](auto tag) {
    if (rows == other)
      f(tag, tag);
    else
      f(tag, float{});
  });
}

}  // namespace

int64_t permute_partials(int64_t rows) { return (rows + kPermuteChunk - 1) / kPermuteChunk; }

void permute(const Permute& a, Where where) {
  if (where.cuda) return cuda::permute(a, where.stream);
  std::vector<int64_t> next(a.slots, 0);
  for (int64_t s = 1; s < a.slots; ++s) next[s] = next[s - 1] + a.count[s - 1];
  const int64_t K = a.chosen_per_token;
  for (int64_t i = 0; i < a.tokens * K; ++i) {
    const int64_t row = next[a.chosen[i]]++;
    a.token_of_row[row] = static_cast<int32_t>(i / K);
    a.slot_of_row[row] = a.chosen[i];
    a.row_of[i] = static_cast<int32_t>(row);
  }
}

void gather_rows(const GatherRows& a, Where where) {
  if (where.cuda) return cuda::gather_rows(a, where.stream);
  with_elements(a.element, a.x_element, [&](auto tag, auto other) {
    using T = decltype(tag);
    using X = decltype(other);
    for_rows(a.num_rows, 128, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int32_t slot = a.slot_of_row[r];
        scaled_copy(static_cast<const X*>(a.x) + a.token_of_row[r] * a.width,
                    entry<T>(a.gain, slot), entry<T>(a.bias, slot),
                    static_cast<T*>(a.rows) + r * a.width, a.width);
      }
    });
  });
}

void combine_rows(const CombineRows& a, Where where) {
  if (where.cuda) return cuda::combine_rows(a, where.stream);
  const int64_t K = a.chosen_per_token;
  with_elements(a.element, a.out_element, [&](auto tag, auto other) {
    using T = decltype(tag);
    using Out = decltype(other);
    for_rows(a.tokens, 64, [&](int64_t begin, int64_t end) {
      std::vector<float> sum(a.width);
      for (int64_t t = begin; t < end; ++t) {
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (int64_t k = 0; k < K; ++k) {
          const int64_t r = a.row_of[t * K + k];
          add_scaled(static_cast<const T*>(a.rows) + r * a.width,
                     entry<T>(a.gain, a.slot_of_row[r]), sum.data(), a.width);
        }
        Out* out = static_cast<Out*>(a.out) + t * a.width;
        for (int64_t i = 0; i < a.width; ++i) store(out[i], sum[i]);
      }
    });
  });
}

void gain_backward(const GainBackward& a, Where where) {
  if (where.cuda) return cuda::gain_backward(a, where.stream);
  std::vector<int64_t> start(a.slots + 1, 0);
  for (int64_t s = 0; s < a.slots; ++s) start[s + 1] = start[s] + a.count[s];
  with_elements(a.element, a.x_element, [&](auto tag, auto other) {
    using T = decltype(tag);
    using X = decltype(other);
    for_rows(a.slots, 1, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) {
        float* dgain = a.dgain + s * a.width;
        float* dbias = a.dbias ? a.dbias + s * a.width : nullptr;
        std::fill_n(dgain, a.width, 0.0f);
        if (dbias) std::fill_n(dbias, a.width, 0.0f);
        for (int64_t r = start[s]; r < start[s + 1]; ++r) {
          const T* drow = static_cast<const T*>(a.drows) + r * a.width;
          add_product(drow, static_cast<const X*>(a.x) + a.token_of_row[r] * a.width, dgain,
                      a.width);
          if (dbias) add_scaled<T>(drow, nullptr, dbias, a.width);
        }
      }
    });
  });
}

void to_rows(const float* by_token, const int32_t* row_of, float* by_row, int64_t num_rows,
             Where where) {
  if (where.cuda) return cuda::to_rows(by_token, row_of, by_row, num_rows, where.stream);
  for (int64_t i = 0; i < num_rows; ++i) by_row[row_of[i]] = by_token[i];
}

void from_rows(const float* by_row, const int32_t* row_of, float* by_token, int64_t num_rows,
               Where where) {
  if (where.cuda) return cuda::from_rows(by_row, row_of, by_token, num_rows, where.stream);
  for (int64_t i = 0; i < num_rows; ++i) by_token[i] = by_row[row_of[i]];
}

}  // namespace moue::kernels
