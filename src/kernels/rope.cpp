// Rotary position embedding on the CPU: the reference.
#include "kernels/rope.h"

#include "kernels/rows.h"

namespace moue::kernels {
namespace {

template <class T>
MOUE_CLONES void turn(const T* from, T* to, const float* cosine, const float* sine, int64_t half,
                      float sign) {
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const float a = load(from[i]), b = load(from[i + half]);
    store(to[i], a * cosine[i] - sign * b * sine[i]);
    store(to[i + half], b * cosine[i] + sign * a * sine[i]);
  }
}

}  // namespace

void rope(const Rope& a, Where where) {
  if (where.cuda) return cuda::rope(a, where.stream);
  const int64_t half = a.channels / 2;
  with_element(a.element, [&](auto tag) {
    using T = decltype(tag);
    for_rows(a.batch * a.length, 32, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t b = row / a.length, t = row % a.length;
        for (int64_t h = 0; h < a.heads; ++h) {
          T* x = static_cast<T*>(a.x) + row * a.x_stride + h * a.channels;
          T* y = static_cast<T*>(a.y) + ((b * a.heads + h) * a.length + t) * a.channels;
          const float *c = a.cosine + t * half, *s = a.sine + t * half;
          if (a.inverse)
            turn<T>(y, x, c, s, half, -1.0f);
          else
            turn<T>(x, y, c, s, half, 1.0f);
        }
      }
    });
  });
}

}  // namespace moue::kernels
