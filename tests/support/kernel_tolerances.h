// Bounds of the kernel tests, relative to the largest wanted number of a tensor, each with its
// reason.
#pragma once

#include "kernels/element.h"

namespace moue::tolerance {

/// float32 arithmetic beside double: a few roundings of 6e-8 each, and exponentials good to 2e-7.
inline constexpr double kFloat32 = 2e-6;
/// Sums of up to some thousand float32 products: roundings add up like the root of the count.
inline constexpr double kFloat32Sum = 1e-5;
/// bfloat16 has 8 bits: one rounding is up to 2^-8, plus float32 dust.
inline constexpr double kBFloat16 = 4e-3;
/// Two roundings in a row: xhat, then gain * xhat.
inline constexpr double kBFloat16Twice = 8e-3;
/// fast_exp against std::exp in double, relative to each value.
inline constexpr double kFastExp = 2e-7;

inline constexpr double of(kernels::Element element, double float32 = kFloat32,
                           double bfloat16 = kBFloat16) {
  return element == kernels::Element::Float32 ? float32 : bfloat16;
}

/// A swapped input must show this many tolerances away.
inline constexpr double kVisible = 100;

}  // namespace moue::tolerance
