// Rotary position embedding of some channels of each head. (Su et al. 2021, arXiv 2104.09864)
#pragma once

#include "kernels/element.h"

namespace moue::kernels {

/// Moves heads out of a projection and turns them: x [batch, length, heads, channels], whose rows
/// (one token's heads) lie `x_stride` elements apart, and y [batch, heads, length, channels],
/// contiguous. Channels [begin, begin + width) turn, pair i by the angle i: channels i and
/// width / 2 + i of those, or 2i and 2i + 1 where `interleaved`; the others are copied. cosine and
/// sine [length, width / 2] float32. forward: x -> y. inverse: y -> x, by the transposed rotation
/// (the gradient).
struct Rope {
  Element element;
  void* x;
  int64_t x_stride;
  void* y;
  const float* cosine;
  const float* sine;
  int64_t batch, length, heads, channels;
  int64_t begin, width;
  bool interleaved;
  bool inverse;
};
void rope(const Rope& a, Where where);

namespace cuda {
void rope(const Rope& a, void* stream);
}

}  // namespace moue::kernels
