// AdamW: decoupled weight decay (Loshchilov, Hutter 2019, arXiv 1711.05101), and the norm that
// clipping needs.
#pragma once

#include "kernels/element.h"

namespace moue::kernels {

/// Which random bits round what is stored in bfloat16: Philox4x32-10 with this key and counter
/// (e / 2 low, e / 2 high, tensor, step) for element number e = first, first + 1, ... Even elements
/// take words 0 and 1, odd ones 2 and 3: the low half of the one word rounds the weight, its high
/// half m, the low half of the other v. The same bits on CPU and CUDA.
struct Rounding {
  uint64_t key = 0;
  uint32_t step = 0;
  uint32_t tensor = 0;
  uint64_t first = 0;
};

/// One tensor. g = scale * grad; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
/// master -= lr * (decay * master + (m / bias1) / (sqrt(v / bias2) + eps)), all in float32; what is
/// bfloat16 in memory is then rounded stochastically: up with the probability that its mean asks
/// for (Gupta et al. 2015, arXiv 1502.02551). The gradient is float32. row_decay (may be null)
/// gives a decay per row of row_size elements in place of `decay`.
struct AdamwArgs {
  void* master;
  const float* grad;
  void* m;
  void* v;
  int64_t size;
  double lr, beta1, beta2, eps, decay;
  double scale;         ///< of the gradient: clipping
  double bias1, bias2;  ///< 1 - beta^t
  const float* row_decay = nullptr;
  int64_t row_size = 1;
  Element weights =
      Element::Float32;  ///< of `master`: BFloat16 where there is none but the weights
  Element moments = Element::Float32;  ///< of m and v
  Rounding rounding = {};
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
