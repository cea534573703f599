// Gated linear units with the gate of the router folded in: out = weight * (u + shift) * g *
// sigmoid(alpha g), g = min(gate, limit), u = up within +-limit.
#pragma once

#include <limits>

#include "kernels/element.h"

namespace moue::kernels {

/// SwiGLU (Shazeer 2020, arXiv 2002.05202) as it stands; gpt-oss: 1.702, 7, 1.
struct GluRule {
  float alpha = 1;
  float limit = std::numeric_limits<float>::infinity();
  float shift = 0;
};

/// h [rows, 2 * width] = [gate, up]; weight [rows] float32, or null for 1; out [rows, width].
struct GluForward {
  Element element;
  GluRule rule;
  const void* h;
  const float* weight;
  void* out;
  int64_t rows, width;
};
void glu_forward(const GluForward& a, Where where);

/// dout [rows, width] is the gradient of out. Writes dh [rows, 2 * width], which is 0 beyond the
/// limits, out again [rows, width] (it was not kept) and dweight [rows] = sum of dout * out /
/// weight (null where weight is).
struct GluBackward {
  Element element;
  GluRule rule;
  const void* h;
  const float* weight;
  const void* dout;
  void* dh;
  void* out;
  float* dweight;
  int64_t rows, width;
};
void glu_backward(const GluBackward& a, Where where);

namespace cuda {
void glu_forward(const GluForward& a, void* stream);
void glu_backward(const GluBackward& a, void* stream);
}  // namespace cuda

}  // namespace moue::kernels
