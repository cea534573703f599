// SwiGLU with the gate of the router folded in: out = weight * silu(gate) * up. (Shazeer 2020,
// arXiv 2002.05202)
#pragma once

#include "kernels/element.h"

namespace moue::kernels {

/// h [rows, 2 * width] = [gate, up]; weight [rows] float32, or null for 1; out [rows, width].
struct SwigluForward {
  Element element;
  const void* h;
  const float* weight;
  void* out;
  int64_t rows, width;
};
void swiglu_forward(const SwigluForward& a, Where where);

/// dout [rows, width] is the gradient of out. Writes dh [rows, 2 * width], out again [rows, width]
/// (it was not kept) and dweight [rows] = sum of dout * silu(gate) * up (null where weight is).
struct SwigluBackward {
  Element element;
  const void* h;
  const float* weight;
  const void* dout;
  void* dh;
  void* out;
  float* dweight;
  int64_t rows, width;
};
void swiglu_backward(const SwigluBackward& a, Where where);

namespace cuda {
void swiglu_forward(const SwigluForward& a, void* stream);
void swiglu_backward(const SwigluBackward& a, void* stream);
}  // namespace cuda

}  // namespace moue::kernels
