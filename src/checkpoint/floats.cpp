// Numbers of every float type of the format as float32 or float64, and float32 rounded to some.
#include "checkpoint/floats.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace moue {
namespace {

// sign, exponent and fraction of a small float with an exponent bias; no special values.
float small_float(int sign, int exponent, int fraction, int fraction_bits, int bias) {
  const int whole = exponent == 0 ? fraction : fraction + (1 << fraction_bits);
  const float size =
      std::ldexp(static_cast<float>(whole), (exponent == 0 ? 1 : exponent) - bias - fraction_bits);
  return sign ? -size : size;
}

using Table = std::array<float, 256>;

Table table_of(float (*value)(uint8_t)) {
  Table table{};
  for (int bits = 0; bits < 256; ++bits) table[bits] = value(static_cast<uint8_t>(bits));
  return table;
}

// half_value of every half: a look-up is ten times as fast.
const std::vector<float>& halves() {
  static const std::vector<float> table = [] {
    std::vector<float> values(1 << 16);
    for (uint32_t bits = 0; bits < values.size(); ++bits)
      values[bits] = half_value(static_cast<uint16_t>(bits));
    return values;
  }();
  return table;
}

template <class Round>
void rounded(std::span<const float> values, std::span<std::byte> out, Round round) {
  if (out.size() != values.size() * sizeof(uint16_t))
    throw std::logic_error("sizes of floats disagree");
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits = round(values[i]);
    std::memcpy(out.data() + i * sizeof(bits), &bits, sizeof(bits));
  }
}

template <class T, class Number, class Convert>
void convert(std::span<const std::byte> bytes, std::span<Number> out, Convert value) {
  if (bytes.size() != out.size() * sizeof(T)) throw std::logic_error("sizes of floats disagree");
  for (size_t i = 0; i < out.size(); ++i) {
    T element;
    std::memcpy(&element, bytes.data() + i * sizeof(T), sizeof(T));
    out[i] = value(element);
  }
}

template <class T, class Convert>
std::vector<double> converted(std::span<const std::byte> bytes, Convert value) {
  std::vector<double> values(bytes.size() / sizeof(T));
  convert<T>(bytes, std::span(values), value);
  return values;
}

template <class T>
std::vector<double> plain(std::span<const std::byte> bytes) {
  return converted<T>(bytes, [](T element) { return static_cast<double>(element); });
}

}  // namespace

float half_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent < 31) return small_float(bits >> 15, exponent, fraction, 10, 15);
  const float special = fraction == 0 ? INFINITY : NAN;
  return (bits >> 15) != 0 ? -special : special;
}

float bfloat_value(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

float fp8_e4m3_value(uint8_t bits) {
  if ((bits & 0x7f) == 0x7f) return NAN;
  return small_float(bits >> 7, (bits >> 3) & 15, bits & 7, 3, 7);
}

float fp8_e5m2_value(uint8_t bits) { return half_value(static_cast<uint16_t>(bits << 8)); }

float fp4_value(uint8_t bits) {
  return small_float((bits >> 3) & 1, (bits >> 1) & 3, bits & 1, 1, 1);
}

bool is_float(Dtype dtype) {
  switch (dtype) {
    case Dtype::F64:
    case Dtype::F32:
    case Dtype::F16:
    case Dtype::BF16:
    case Dtype::F8E4M3:
    case Dtype::F8E5M2:
      return true;
    default:
      return false;
  }
}

void to_floats(Dtype dtype, std::span<const std::byte> bytes, std::span<float> out) {
  static const Table e4m3 = table_of(fp8_e4m3_value), e5m2 = table_of(fp8_e5m2_value);
  switch (dtype) {
    case Dtype::F64:
      return convert<double>(bytes, out, [](double x) { return static_cast<float>(x); });
    case Dtype::F32:
      return convert<float>(bytes, out, [](float x) { return x; });
    case Dtype::F16:
      return convert<uint16_t>(bytes, out, [&table = halves()](uint16_t x) { return table[x]; });
    case Dtype::BF16:
      return convert<uint16_t>(bytes, out, bfloat_value);
    case Dtype::F8E4M3:
      return convert<uint8_t>(bytes, out, [](uint8_t x) { return e4m3[x]; });
    case Dtype::F8E5M2:
      return convert<uint8_t>(bytes, out, [](uint8_t x) { return e5m2[x]; });
    default:
      throw std::logic_error("to_floats of a type that is no float");
  }
}

std::optional<std::vector<double>> to_doubles(Dtype dtype, std::span<const std::byte> bytes) {
  switch (dtype) {
    case Dtype::Bool:
    case Dtype::U8:
      return plain<uint8_t>(bytes);
    case Dtype::I8:
      return plain<int8_t>(bytes);
    case Dtype::I16:
      return plain<int16_t>(bytes);
    case Dtype::U16:
      return plain<uint16_t>(bytes);
    case Dtype::I32:
      return plain<int32_t>(bytes);
    case Dtype::U32:
      return plain<uint32_t>(bytes);
    case Dtype::I64:
      return plain<int64_t>(bytes);
    case Dtype::U64:
      return plain<uint64_t>(bytes);
    case Dtype::F32:
      return plain<float>(bytes);
    case Dtype::F64:
      return plain<double>(bytes);
    case Dtype::F16:
      return converted<uint16_t>(bytes, half_value);
    case Dtype::BF16:
      return converted<uint16_t>(bytes, bfloat_value);
    default:
      return std::nullopt;
  }
}

uint16_t bfloat_of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

uint16_t half_of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t size = bits & 0x7fffffff;
  if (size > 0x7f800000) return sign | 0x7e00 | static_cast<uint16_t>(size >> 13 & 0x3ff);
  if (size >= 0x47800000) return sign | 0x7c00;  // 65536 and up
  if (size >= 0x38800000) {                      // 2^-14 and up: normal; a carry may reach infinity
    const uint32_t rebased = size - 0x38000000;
    return sign | static_cast<uint16_t>((rebased + 0xfff + (rebased >> 13 & 1)) >> 13);
  }
  // Below: multiples of 2^-24, to which adding a half rounds as the hardware does.
  const float magnitude = std::bit_cast<float>(size) + 0.5F;
  return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(magnitude) - 0x3f000000);
}

void from_floats(Dtype dtype, std::span<const float> values, std::span<std::byte> out) {
  switch (dtype) {
    case Dtype::F32:
      if (out.size() != values.size_bytes()) throw std::logic_error("sizes of floats disagree");
      std::memcpy(out.data(), values.data(), out.size());
      return;
    case Dtype::F16:
      return rounded(values, out, half_of);
    case Dtype::BF16:
      return rounded(values, out, bfloat_of);
    default:
      throw std::logic_error("from_floats to a type it does not round to");
  }
}

}  // namespace moue
