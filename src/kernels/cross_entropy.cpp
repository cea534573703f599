// Cross-entropy on the CPU: the reference.
#include "kernels/cross_entropy.h"

#include <algorithm>

#include "kernels/rows.h"

namespace moue::kernels {
namespace {

template <class T>
MOUE_CLONES float largest(const T* x, int64_t size) {
  float top = load(x[0]);
#pragma omp simd reduction(max : top)
  for (int64_t i = 0; i < size; ++i) top = load(x[i]) > top ? load(x[i]) : top;
  return top;
}

template <class T>
MOUE_CLONES float sum_exp(const T* x, float top, int64_t size) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < size; ++i) sum += fast_exp(load(x[i]) - top);
  return sum;
}

template <class T>
MOUE_CLONES void softmax_in_place(T* x, float top, float scale, int64_t size) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) store(x[i], fast_exp(load(x[i]) - top) * scale);
}

template <class T>
float row(T* x, int64_t target, float scale, int64_t vocabulary) {
  if (target < 0) {
    if (scale != 0) std::fill_n(x, vocabulary, T{});
    return 0;
  }
  const float top = largest(x, vocabulary);
  const float sum = sum_exp(x, top, vocabulary);
  const float loss = top + std::log(sum) - load(x[target]);
  if (scale != 0) {
    const float probability = std::exp(load(x[target]) - top) / sum;
    softmax_in_place(x, top, scale / sum, vocabulary);
    store(x[target], scale * (probability - 1.0f));
  }
  return loss;
}

}  // namespace

void cross_entropy(const CrossEntropy& a, Where where) {
  if (where.cuda) return cuda::cross_entropy(a, where.stream);
  with_element(a.element, [&](auto tag) {
    using T = decltype(tag);
    for_rows(a.rows, 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        a.loss[i] =
            row(static_cast<T*>(a.logits) + i * a.vocabulary, a.target[i], a.scale, a.vocabulary);
      }
    });
  });
}

}  // namespace moue::kernels
