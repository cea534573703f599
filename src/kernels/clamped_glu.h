// The clamped GLU of gpt-oss with the gate of the router folded in: out = weight * (u + 1) * g *
// sigmoid(alpha g), g = min(gate, limit), u = up within +-limit.
#pragma once

#include "kernels/element.h"

namespace moue::kernels {

/// h [rows, 2 * width] = [gate, up]; weight [rows] float32, or null for 1; out [rows, width].
struct ClampedGluForward {
  Element element;
  const void* h;
  const float* weight;
  void* out;
  int64_t rows, width;
  float alpha, limit;
};
void clamped_glu_forward(const ClampedGluForward& a, Where where);

/// dout [rows, width] is the gradient of out. Writes dh [rows, 2 * width], which is 0 beyond the
/// limits, out again [rows, width] (it was not kept) and dweight [rows] = sum of dout * out /
/// weight (null where weight is).
struct ClampedGluBackward {
  Element element;
  const void* h;
  const float* weight;
  const void* dout;
  void* dh;
  void* out;
  float* dweight;
  int64_t rows, width;
  float alpha, limit;
};
void clamped_glu_backward(const ClampedGluBackward& a, Where where);

namespace cuda {
void clamped_glu_forward(const ClampedGluForward& a, void* stream);
void clamped_glu_backward(const ClampedGluBackward& a, void* stream);
}  // namespace cuda

}  // namespace moue::kernels
