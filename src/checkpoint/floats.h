// Numbers of every float type of the format as float32 or float64, and float32 rounded to some.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "moue/safetensors.h"

namespace moue {

float half_value(uint16_t bits);
float bfloat_value(uint16_t bits);
float fp8_e4m3_value(uint8_t bits);  ///< OCP: no infinities, NaN is S.1111.111
float fp8_e5m2_value(uint8_t bits);
/// 0 .5 1 1.5 2 3 4 6 and their negatives; the low four bits count.
float fp4_value(uint8_t bits);

/// Is it F64, F32, F16, BF16, F8_E4M3 or F8_E5M2?
bool is_float(Dtype dtype);
/// Elements of such a type, in order. Sizes must agree.
void to_floats(Dtype dtype, std::span<const std::byte> bytes, std::span<float> out);

/// Elements of a float type (F64, F32, F16, BF16) or an integer type; nothing for others.
std::optional<std::vector<double>> to_doubles(Dtype dtype, std::span<const std::byte> bytes);

/// Rounded to nearest, ties to even; NaN stays NaN, too large becomes infinite.
uint16_t bfloat_of(float value);
uint16_t half_of(float value);
/// The inverse of to_floats, rounded so. F32, F16 and BF16 alone.
void from_floats(Dtype dtype, std::span<const float> values, std::span<std::byte> out);

}  // namespace moue
