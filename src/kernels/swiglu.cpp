// SwiGLU on the CPU: the reference.
#include "kernels/swiglu.h"

#include "kernels/rows.h"

namespace moue::kernels {
namespace {

template <class T>
MOUE_CLONES void row_forward(const T* h, float weight, T* out, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const float g = load(h[i]), u = load(h[width + i]);
    store(out[i], weight * (g / (1.0f + fast_exp(-g)) * u));
  }
}

template <class T>
MOUE_CLONES float row_backward(const T* h, float weight, const T* dout, T* dh, T* out,
                               int64_t width) {
  float dot = 0;
#pragma omp simd reduction(+ : dot)
  for (int64_t i = 0; i < width; ++i) {
    const float g = load(h[i]), u = load(h[width + i]), d = load(dout[i]);
    const float s = 1.0f / (1.0f + fast_exp(-g));
    const float silu = g * s;
    dot += d * (silu * u);
    store(out[i], weight * (silu * u));
    store(dh[i], weight * d * u * (s + silu * (1.0f - s)));
    store(dh[width + i], weight * d * silu);
  }
  return dot;
}

}  // namespace

void swiglu_forward(const SwigluForward& a, Where where) {
  if (where.cuda) return cuda::swiglu_forward(a, where.stream);
  with_element(a.element, [&](auto tag) {
    using T = decltype(tag);
    for_rows(a.rows, 32, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        row_forward<T>(static_cast<const T*>(a.h) + i * 2 * a.width, a.weight ? a.weight[i] : 1.0f,
                       static_cast<T*>(a.out) + i * a.width, a.width);
      }
    });
  });
}

void swiglu_backward(const SwigluBackward& a, Where where) {
  if (where.cuda) return cuda::swiglu_backward(a, where.stream);
  with_element(a.element, [&](auto tag) {
    using T = decltype(tag);
    for_rows(a.rows, 32, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float dot = row_backward<T>(
            static_cast<const T*>(a.h) + i * 2 * a.width, a.weight ? a.weight[i] : 1.0f,
            static_cast<const T*>(a.dout) + i * a.width, static_cast<T*>(a.dh) + i * 2 * a.width,
            static_cast<T*>(a.out) + i * a.width, a.width);
        if (a.dweight) a.dweight[i] = dot;
      }
    });
  });
}

}  // namespace moue::kernels
