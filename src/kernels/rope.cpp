// Rotary position embedding on the CPU: the reference.
#include "kernels/rope.h"

#include <algorithm>

#include "kernels/rows.h"

namespace moue::kernels {
namespace {

template <class T>
MOUE_CLONES void turn_halves(const T* from, T* to, const float* cosine, const float* sine,
                             int64_t half, float sign) {
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const float a = load(from[i]), b = load(from[i + half]);
    store(to[i], a * cosine[i] - sign * b * sine[i]);
    store(to[i + half], b * cosine[i] + sign * a * sine[i]);
  }
}

template <class T>
MOUE_CLONES void turn_pairs(const T* from, T* to, const float* cosine, const float* sine,
                            int64_t half, float sign) {
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const float a = load(from[2 * i]), b = load(from[2 * i + 1]);
    store(to[2 * i], a * cosine[i] - sign * b * sine[i]);
    store(to[2 * i + 1], b * cosine[i] + sign * a * sine[i]);
  }
}

}  // namespace

void rope(const Rope& a, Where where) {
  if (where.cuda) return cuda::rope(a, where.stream);
  const int64_t half = a.width / 2, end = a.begin + a.width;
  const float sign = a.inverse ? -1.0f : 1.0f;
  with_element(a.element, [&](auto tag) {
    using T = decltype(tag);
    const auto turn = a.interleaved ? turn_pairs<T> : turn_halves<T>;
    for_rows(a.batch * a.length, 32, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        const int64_t b = row / a.length, t = row % a.length;
        for (int64_t h = 0; h < a.heads; ++h) {
          T* x = static_cast<T*>(a.x) + row * a.x_stride + h * a.channels;
          T* y = static_cast<T*>(a.y) + ((b * a.heads + h) * a.length + t) * a.channels;
          const T* from = a.inverse ? y : x;
          T* to = a.inverse ? x : y;
          std::copy(from, from + a.begin, to);
          turn(from + a.begin, to + a.begin, a.cosine + t * half, a.sine + t * half, half, sign);
          std::copy(from + end, from + a.channels, to + end);
        }
      }
    });
  });
}

}  // namespace moue::kernels
