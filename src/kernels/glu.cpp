// Gated linear units on the CPU: the reference.
#include "kernels/glu.h"

#include "kernels/rows.h"

namespace moue::kernels {
namespace {

// NaN stays NaN.
inline float at_most(float x, float limit) { return x > limit ? limit : x; }
inline float at_least(float x, float limit) { return x < limit ? limit : x; }

template <class T>
MOUE_CLONES void row_forward(const T* h, float weight, T* out, int64_t width, GluRule rule) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const float g = at_most(load(h[i]), rule.limit);
    const float u = at_least(at_most(load(h[width + i]), rule.limit), -rule.limit);
    store(out[i], weight * ((u + rule.shift) * (g / (1.0f + fast_exp(-rule.alpha * g)))));
  }
}

template <class T>
MOUE_CLONES float row_backward(const T* h, float weight, const T* dout, T* dh, T* out,
                               int64_t width, GluRule rule) {
  float dot = 0;
#pragma omp simd reduction(+ : dot)
  for (int64_t i = 0; i < width; ++i) {
    const float gate = load(h[i]), up = load(h[width + i]), d = load(dout[i]);
    const float g = at_most(gate, rule.limit);
    const float u = at_least(at_most(up, rule.limit), -rule.limit) + rule.shift;
    const float s = 1.0f / (1.0f + fast_exp(-rule.alpha * g));
    const float half = g * s, value = u * half;
    dot += d * value;
    store(out[i], weight * value);
    const float dgate = weight * d * u * (s + rule.alpha * half * (1.0f - s));
    store(dh[i], gate > rule.limit ? 0.0f : dgate);
    store(dh[width + i], up > rule.limit || up < -rule.limit ? 0.0f : weight * d * half);
  }
  return dot;
}

}  // namespace

void glu_forward(const GluForward& a, Where where) {
  if (where.cuda) return cuda::glu_forward(a, where.stream);
  with_element(a.element, [&](auto tag) {
    using T = decltype(tag);
    for_rows(a.rows, 32, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        row_forward<T>(static_cast<const T*>(a.h) + i * 2 * a.width, a.weight ? a.weight[i] : 1.0f,
                       static_cast<T*>(a.out) + i * a.width, a.width, a.rule);
      }
    });
  });
}

void glu_backward(const GluBackward& a, Where where) {
  if (where.cuda) return cuda::glu_backward(a, where.stream);
  with_element(a.element, [&](auto tag) {
    using T = decltype(tag);
    for_rows(a.rows, 32, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float dot = row_backward<T>(
            static_cast<const T*>(a.h) + i * 2 * a.width, a.weight ? a.weight[i] : 1.0f,
            static_cast<const T*>(a.dout) + i * a.width, static_cast<T*>(a.dh) + i * 2 * a.width,
            static_cast<T*>(a.out) + i * a.width, a.width, a.rule);
        if (a.dweight) a.dweight[i] = dot;
      }
    });
  });
}

}  // namespace moue::kernels
