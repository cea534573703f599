// What the CPU kernels share: bfloat16, vectorisable exp, threads over rows. Not for CUDA sources.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/element.h"

// One binary for every x86-64: the hot loops are compiled per instruction set and chosen at load
// time.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define MOUE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MOUE_CLONES
#endif

namespace moue::kernels {

struct Bf16 {
  uint16_t bits;
};

inline float load(float x) { return x; }
inline float load(Bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
inline void store(float& to, float x) { to = x; }
/// Round to nearest even, as torch does; NaN stays NaN.
inline void store(Bf16& to, float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to.bits = static_cast<uint16_t>(x != x ? 0x7fc0u : rounded);
}

/// Relative error below 2e-7 on [-87, 88]; clamped outside. Written so that loops over it
/// vectorise.
inline float fast_exp(float x) {
  x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
  const float rounded =
      x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the integer sits in the low bits
  const float n = rounded - 12582912.0f;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t power = static_cast<int32_t>(n);
  return p * std::bit_cast<float>((power + 127) << 23);
}

void parallel_for(int64_t size, int64_t grain, void (*body)(void*, int64_t, int64_t),
                  void* context);

/// body(begin, end) over rows.
template <class Body>
void for_rows(int64_t rows, int64_t grain, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  parallel_for(
      rows, grain,
      [](void* b, int64_t begin, int64_t end) { (*static_cast<Plain*>(b))(begin, end); },
      const_cast<std::remove_const_t<Plain>*>(&body));
}

/// Calls f with a value of the C++ type behind `element`.
template <class F>
void with_element(Element element, F&& f) {
  if (element == Element::Float32)
    f(float{});
  else
    f(Bf16{});
}

}  // namespace moue::kernels
