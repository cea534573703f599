// RMSNorm: xhat = x * rsqrt(mean(x^2) + eps), y = gain * xhat. (Zhang, Sennrich 2019, arXiv
// 1910.07467)
#pragma once

#include "kernels/element.h"

namespace moue::kernels {

/// x [rows, width] -> out [rows, width], rstd [rows] float32. Statistics in float32; xhat is
/// rounded to the element type before it is multiplied by the gain (the order of casts of the Llama
/// family). gain [width] may be null: then out = xhat.
struct RmsNormForward {
  Element element;
  const void* x;
  const void* gain;
  void* out;
  float* rstd;
  int64_t rows, width;
  float eps;
};
void rms_norm_forward(const RmsNormForward& a, Where where);

/// dx [rows, width]; dgain [width] float32 is overwritten (null where gain is). `partial` is
/// scratch of rms_norm_partials(rows) * width floats, summed in order, so that the result does not
/// depend on threads.
struct RmsNormBackward {
  Element element;
  const void* x;
  const void* gain;
  const void* dout;
  const float* rstd;
  void* dx;
  float* dgain;
  float* partial;
  int64_t rows, width;
};
void rms_norm_backward(const RmsNormBackward& a, Where where);
inline constexpr int64_t kRmsNormRows = 128;  ///< of one partial sum
int64_t rms_norm_partials(int64_t rows);

namespace cuda {
void rms_norm_forward(const RmsNormForward& a, void* stream);
void rms_norm_backward(const RmsNormBackward& a, void* stream);
}  // namespace cuda

}  // namespace moue::kernels
