// Standard normal numbers as a pure function of (seed, tensor, index), the same on every machine.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace moue {

/// The x with P(X < x) = p of a standard normal X, 0 < p < 1; relative error below 1e-15. Every
/// operation is rounded as IEEE 754 says and no libm function is called but fma, so that the bits
/// do not depend on the machine.
double normal_quantile(double p);

/// Draws out[i] = deviation * normal(seed, name, first + i).
void fill_normal(std::span<float> out, uint64_t seed, std::string_view name, double deviation,
                 uint64_t first = 0);

}  // namespace moue
