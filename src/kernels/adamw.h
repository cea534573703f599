// AdamW: decoupled weight decay (Loshchilov, Hutter 2019, arXiv 1711.05101), and the norm that
// clipping needs.
#pragma once

#include "kernels/element.h"

namespace moue::kernels {

/// One tensor. g = scale * grad; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
/// master -= lr * (decay * master + (m / bias1) / (sqrt(v / bias2) + eps)). All float32 in memory.
/// row_decay (may be null) gives a decay per row of row_size elements in place of `decay`.
struct AdamwArgs {
  float* master;
  const float* grad;
  float* m;
  float* v;
  int64_t size;
  double lr, beta1, beta2, eps, decay;
  double scale;         ///< of the gradient: clipping
  double bias1, bias2;  ///< 1 - beta^t
  const float* row_decay = nullptr;
  int64_t row_size = 1;
};
void adamw(const AdamwArgs& a, Where where);

/// result = sum of squares of x [size] in float64, the same for any number of threads. `partial` is
/// scratch of sum_of_squares_partials(size) doubles. On CUDA both are device memory and nothing
/// waits.
void sum_of_squares(const float* x, int64_t size, double* partial, double* result, Where where);
inline constexpr int64_t kSquaresBlock = 1 << 14;  ///< elements of one partial sum
int64_t sum_of_squares_partials(int64_t size);

namespace cuda {
void adamw(const AdamwArgs& a, void* stream);
void sum_of_squares(const float* x, int64_t size, double* partial, double* result, void* stream);
}  // namespace cuda

}  // namespace moue::kernels
