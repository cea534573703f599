// Distillation on the CPU: the reference.
#include "kernels/distillation.h"

#include <algorithm>

#include "kernels/rows.h"

namespace moue::kernels {
namespace {

// Of one row: log softmax(x / t)[i] = (x[i] - top) * rate - log_sum.
struct Softmax {
  float top, log_sum, rate;
};

template <class T>
MOUE_CLONES float largest(const T* x, int64_t size) {
  float top = load(x[0]);
#pragma omp simd reduction(max : top)
  for (int64_t i = 0; i < size; ++i) top = load(x[i]) > top ? load(x[i]) : top;
  return top;
}

template <class T>
MOUE_CLONES float sum_exp(const T* x, float top, float rate, int64_t size) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < size; ++i) sum += fast_exp((load(x[i]) - top) * rate);
  return sum;
}

template <class T>
Softmax softmax_of(const T* x, float top, float rate, int64_t size) {
  return {top, std::log(sum_exp(x, top, rate, size)), rate};
}

// KL(p || q): equal rows give differences that are 0, not small ones.
template <class T>
MOUE_CLONES float divergence_of(const T* teacher, const T* student, Softmax p, Softmax q,
                                int64_t size) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < size; ++i) {
    const float log_p = (load(teacher[i]) - p.top) * p.rate - p.log_sum;
    const float log_q = (load(student[i]) - q.top) * q.rate - q.log_sum;
    sum += fast_exp(log_p) * (log_p - log_q);
  }
  return sum;
}

// hard (softmax(x) - onehot) + soft (q - p), without the onehot.
template <class T>
MOUE_CLONES void gradient(T* x, const T* teacher, Softmax plain, Softmax p, Softmax q, float hard,
                          float soft, int64_t size) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) {
    const float z = load(x[i]), z_teacher = load(teacher[i]);
    const float one = fast_exp((z - plain.top) - plain.log_sum);
    const float own = fast_exp((z - q.top) * q.rate - q.log_sum);
    const float other = fast_exp((z_teacher - p.top) * p.rate - p.log_sum);
    store(x[i], hard * one + soft * (own - other));
  }
}

template <class T>
void row(const Distillation& a, int64_t i) {
  const int64_t size = a.student.vocabulary, target = a.student.target[i];
  T* x = static_cast<T*>(a.student.logits) + i * size;
  const T* teacher = static_cast<const T*>(a.teacher) + i * size;
  const float scale = a.student.scale, t = a.temperature;
  a.student.loss[i] = a.divergence[i] = 0;
  if (target < 0) {
    if (scale != 0) std::fill_n(x, size, T{});
    return;
  }
  const float top = largest(x, size);
  const Softmax plain = softmax_of(x, top, 1.0f, size);
  const Softmax q = t == 1 ? plain : softmax_of(x, top, 1 / t, size);
  const Softmax p = softmax_of(teacher, largest(teacher, size), 1 / t, size);
  const float picked = load(x[target]);
  a.student.loss[i] = top + plain.log_sum - picked;
  a.divergence[i] = t * t * divergence_of(teacher, x, p, q, size);
  if (scale == 0) return;
  const float hard = scale * (1 - a.share), soft = scale * a.share * t;
  const float z_teacher = load(teacher[target]);
  gradient(x, teacher, plain, p, q, hard, soft, size);
  // Of the target again, with its onehot, rounded once.
  const float one = std::exp((picked - plain.top) - plain.log_sum);
  const float own = std::exp((picked - q.top) * q.rate - q.log_sum);
  const float other = std::exp((z_teacher - p.top) * p.rate - p.log_sum);
  store(x[target], hard * (one - 1.0f) + soft * (own - other));
}

}  // namespace

void distillation(const Distillation& a, Where where) {
  if (where.cuda) return cuda::distillation(a, where.stream);
  with_element(a.student.element, [&](auto tag) {
    for_rows(a.student.rows, 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) row<decltype(tag)>(a, i);
    });
  });
}

}  // namespace moue::kernels
