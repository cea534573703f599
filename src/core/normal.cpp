// Quantile of the normal distribution: algorithm AS 241 (Wichura, Applied Statistics 37, 1988),
// PPND16.
#include "core/normal.h"

#include "core/philox.h"

#include <array>
#include <cmath>

namespace moue {

namespace {

using Coefficients = std::array<double, 8>;  // of x^0, x^1, ...

constexpr Coefficients kMiddleTop = {3.3871328727963666080e0,  1.3314166789178437745e+2,
                                     1.9715909503065514427e+3, 1.3731693765509461125e+4,
                                     4.5921953931549871457e+4, 6.7265770927008700853e+4,
                                     3.3430575583588128105e+4, 2.5090809287301226727e+3};
constexpr Coefficients kMiddleBottom = {1.0,
                                        4.2313330701600911252e+1,
                                        6.8718700749205790830e+2,
                                        5.3941960214247511077e+3,
                                        2.1213794301586595867e+4,
                                        3.9307895800092710610e+4,
                                        2.8729085735721942674e+4,
                                        5.2264952788528545610e+3};
constexpr Coefficients kSideTop = {1.42343711074968357734e0,  4.63033784615654529590e0,
                                   5.76949722146069140550e0,  3.64784832476320460504e0,
                                   1.27045825245236838258e0,  2.41780725177450611770e-1,
                                   2.27238449892691845833e-2, 7.74545014278341407640e-4};
constexpr Coefficients kSideBottom = {1.0,
                                      2.05319162663775882187e0,
                                      1.67638483018380384940e0,
                                      6.89767334985100004550e-1,
                                      1.48103976427480074590e-1,
                                      1.51986665636164571966e-2,
                                      5.47593808499534494600e-4,
                                      1.05075007164441684324e-9};
constexpr Coefficients kTailTop = {6.65790464350110377720e0,  5.46378491116411436990e0,
                                   1.78482653991729133580e0,  2.96560571828504891230e-1,
                                   2.65321895265761230930e-2, 1.24266094738807843860e-3,
                                   2.71155556874348757815e-5, 2.01033439929228813265e-7};
constexpr Coefficients kTailBottom = {1.0,
                                      5.99832206555887937690e-1,
                                      1.36929880922735805310e-1,
                                      1.48753612908506148525e-2,
                                      7.86869131145613259100e-4,
                                      1.84631831751005468180e-5,
                                      1.42151175831644588870e-7,
                                      2.04426310338993978564e-15};

template <size_t Count>
double polynomial(const std::array<double, Count>& coefficients, double x) {
  double sum = coefficients.back();
  for (size_t i = Count - 1; i-- > 0;) sum = std::fma(sum, x, coefficients[i]);
  return sum;
}

// ln x for x > 0: x = m 2^e with sqrt(1/2) <= m < sqrt(2), ln m = 2 artanh((m - 1) / (m + 1)).
double logarithm(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < 0.70710678118654752440) {
    m *= 2;
    exponent -= 1;
  }
  constexpr std::array<double, 11> kArtanh = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,
                                              1.0 / 9,  1.0 / 11, 1.0 / 13, 1.0 / 15,
                                              1.0 / 17, 1.0 / 19, 1.0 / 21};
  const double s = (m - 1) / (m + 1);
  return std::fma(exponent, 0.69314718055994530942, 2 * s * polynomial(kArtanh, s * s));
}

// A number in (0, 1) from 52 of the counter's bits, never an end.
double uniform(uint64_t seed, PhiloxBlock counter) {
  const PhiloxBlock block = philox(seed, counter);
  const uint64_t bits = uint64_t{block[0]} << 20 | block[1] >> 12;
  return std::ldexp(static_cast<double>(2 * bits + 1), -53);
}

// FNV-1a: a tensor's name as two words of the counter.
uint64_t name_hash(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

double normal_quantile(double p) {
  const double q = p - 0.5;
  if (std::fabs(q) <= 0.425) {
    const double r = std::fma(-q, q, 0.180625);
    return q * polynomial(kMiddleTop, r) / polynomial(kMiddleBottom, r);
  }
  const double r = std::sqrt(-logarithm(q < 0 ? p : 1 - p));
  const double x = r <= 5 ? polynomial(kSideTop, r - 1.6) / polynomial(kSideBottom, r - 1.6)
                          : polynomial(kTailTop, r - 5) / polynomial(kTailBottom, r - 5);
  return q < 0 ? -x : x;
}

void fill_normal(std::span<float> out, uint64_t seed, std::string_view name, double deviation,
                 uint64_t first) {
  const uint64_t hash = name_hash(name);
  const uint32_t low = static_cast<uint32_t>(hash), high = static_cast<uint32_t>(hash >> 32);
  for (uint64_t i = 0; i < out.size(); ++i) {
    const uint64_t at = first + i;
    const double p =
        uniform(seed, {static_cast<uint32_t>(at), static_cast<uint32_t>(at >> 32), low, high});
    out[i] = static_cast<float>(deviation * normal_quantile(p));
  }
}

}  // namespace moue
