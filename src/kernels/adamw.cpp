// AdamW on the CPU: the reference.
#include "kernels/adamw.h"

#include <algorithm>

#include "kernels/rows.h"

namespace moue::kernels {
namespace {

struct Constants {
  float beta1, beta2, rest1, rest2, scale, step, root, eps;
};

MOUE_CLONES void update(float* master, const float* grad, float* m, float* v, int64_t size,
                        float keep, const Constants& c) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) {
    const float g = c.scale * grad[i];
    m[i] = c.beta1 * m[i] + c.rest1 * g;
    v[i] = c.beta2 * v[i] + c.rest2 * g * g;
    master[i] = keep * master[i] - c.step * m[i] / (std::sqrt(v[i]) * c.root + c.eps);
  }
}

MOUE_CLONES double block_squares(const float* x, int64_t size) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < size; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

}  // namespace

void adamw(const AdamwArgs& a, Where where) {
  if (where.cuda) return cuda::adamw(a, where.stream);
  const Constants c{static_cast<float>(a.beta1),
                    static_cast<float>(a.beta2),
                    static_cast<float>(1 - a.beta1),
                    static_cast<float>(1 - a.beta2),
                    static_cast<float>(a.scale),
                    static_cast<float>(a.lr / a.bias1),
                    static_cast<float>(1 / std::sqrt(a.bias2)),
                    static_cast<float>(a.eps)};
  const int64_t piece = a.row_decay ? a.row_size : kSquaresBlock;
  const int64_t pieces = (a.size + piece - 1) / piece;
  for_rows(pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t at = p * piece;
      const double decay = a.row_decay ? a.row_decay[p] : a.decay;
      update(a.master + at, a.grad + at, a.m + at, a.v + at, std::min(piece, a.size - at),
             static_cast<float>(1 - a.lr * decay), c);
    }
  });
}

int64_t sum_of_squares_partials(int64_t size) { return (size + kSquaresBlock - 1) / kSquaresBlock; }

void sum_of_squares(const float* x, int64_t size, double* partial, double* result, Where where) {
  if (where.cuda) return cuda::sum_of_squares(x, size, partial, result, where.stream);
  const int64_t blocks = sum_of_squares_partials(size);
  for_rows(blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      partial[b] =
          block_squares(x + b * kSquaresBlock, std::min(kSquaresBlock, size - b * kSquaresBlock));
    }
  });
  *result = 0;
  for (int64_t b = 0; b < blocks; ++b) *result += partial[b];
}

}  // namespace moue::kernels
