// First include of a kernel test: numbers in the memory of the place where the kernel runs, with
// poisoned outputs and guarded ends, and how far two results are apart.
#pragma once

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "core/philox.h"
#include "kernels/element.h"
#include "support/kernel_device.h"
#include "support/kernel_tolerances.h"
#include "support/not_run.h"

namespace moue::test {

using kernels::Element;
using kernels::Where;
using Values = std::vector<double>;

inline constexpr Where kCpu{};
inline constexpr Where kGpu{true, nullptr};

/// False without a device; the test then returns, and the program ends with "did not run".
inline bool have_gpu() {
  if (device::state() == device::State::Ready) return true;
  did_not_run("no CUDA device");
  return false;
}

inline float round_to(Element element, double x) {
  const float f = static_cast<float>(x);
  if (element == Element::Float32 || f != f) return f;
  // Nearest even by arithmetic, not by the kernels' bit trick.
  int exponent = 0;
  const double mantissa = std::frexp(static_cast<double>(f), &exponent);
  return static_cast<float>(std::ldexp(std::nearbyint(std::ldexp(mantissa, 8)), exponent - 8));
}

inline Values rounded(Element element, Values x) {
  for (double& v : x) v = round_to(element, v);
  return x;
}

/// Uniform numbers in [-scale, scale), exact in `element`; the same for a seed on every machine.
inline Values random_values(int64_t size, uint64_t seed, double scale = 1,
                            Element element = Element::Float32) {
  Values x(static_cast<size_t>(size));
  for (size_t i = 0; i < x.size(); ++i) {
    const PhiloxBlock block = philox(seed, {static_cast<uint32_t>(i), 0, 0, 0});
    x[i] = round_to(element, scale * (block[0] / 2147483648.0 - 1.0));
  }
  return x;
}

/// `size` numbers where a kernel runs. Outputs start as poison, and both ends are guarded.
template <class T>
class Array {
 public:
  Array(Where where, const std::vector<T>& values) : Array(where, values.size()) {
    std::copy(values.begin(), values.end(), host_.begin() + kGuard);
    upload();
  }
  Array(Where where, size_t size) : where_(where), size_(size), host_(size + 2 * kGuard) {
    std::memset(host_.data(), kPoison, bytes());
    if (where_.cuda) device_ = static_cast<T*>(device::allocate(bytes()));
    upload();
  }
  ~Array() {
    if (device_) device::release(device_);
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  /// For the kernel.
  T* data() { return (where_.cuda ? device_ : host_.data()) + kGuard; }

  /// What the kernel left. Fails the test when it wrote beside the array.
  std::vector<T> values() {
    if (where_.cuda) device::to_host(host_.data(), device_, bytes());
    for (size_t i = 0; i < kGuard; ++i) {
      CHECK(is_poison(host_[i]));
      CHECK(is_poison(host_[kGuard + size_ + i]));
    }
    return {host_.begin() + kGuard, host_.end() - kGuard};
  }

  static bool is_poison(const T& x) {
    unsigned char raw[sizeof(T)];
    std::memcpy(raw, &x, sizeof(T));
    return std::all_of(raw, raw + sizeof(T), [](unsigned char c) { return c == kPoison; });
  }

 private:
  static constexpr size_t kGuard = 64;            // keeps the data on 16 bytes
  static constexpr unsigned char kPoison = 0xff;  // NaN in floats, -1 in integers

  size_t bytes() const { return host_.size() * sizeof(T); }
  void upload() {
    if (where_.cuda) device::to_device(device_, host_.data(), bytes());
  }

  Where where_;
  size_t size_;
  std::vector<T> host_;
  T* device_ = nullptr;
};

/// An array of `element`, spoken to in doubles.
class Numbers {
 public:
  Numbers(Where where, Element element, const Values& values)
      : element_(element), raw_(where, encode(element, values)) {}
  Numbers(Where where, Element element, size_t size)
      : element_(element), raw_(where, size * (element == Element::Float32 ? 2 : 1)) {}

  void* data() { return raw_.data(); }

  Values values() {
    const std::vector<uint16_t> raw = raw_.values();
    if (element_ == Element::BFloat16) {
      Values out;
      for (const uint16_t bits : raw)
        out.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits) << 16));
      return out;
    }
    std::vector<float> floats(raw.size() / 2);
    std::memcpy(floats.data(), raw.data(), raw.size() * sizeof(uint16_t));
    return {floats.begin(), floats.end()};
  }

 private:
  static std::vector<uint16_t> encode(Element element, const Values& values) {
    std::vector<uint16_t> raw;
    for (const double v : values) {
      const uint32_t bits = std::bit_cast<uint32_t>(static_cast<float>(v));
      if (element == Element::Float32) raw.push_back(static_cast<uint16_t>(bits));
      raw.push_back(static_cast<uint16_t>(bits >> 16));
    }
    return raw;
  }

  Element element_;
  Array<uint16_t> raw_;
};

inline Array<float> floats(Where where, const Values& values) {
  return Array<float>(where, std::vector<float>(values.begin(), values.end()));
}

inline Values doubles(const std::vector<float>& x) { return {x.begin(), x.end()}; }

/// Largest difference, in units of the largest wanted number; infinite where one is not finite or
/// sizes differ.
inline double max_error(const Values& got, const Values& wanted) {
  if (got.size() != wanted.size()) return std::numeric_limits<double>::infinity();
  double largest = 0, difference = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (!std::isfinite(got[i]) || !std::isfinite(wanted[i]))
      return std::numeric_limits<double>::infinity();
    largest = std::max(largest, std::abs(wanted[i]));
    difference = std::max(difference, std::abs(got[i] - wanted[i]));
  }
  return difference == 0 ? 0 : difference / std::max(largest, 1e-30);
}

/// Equal bit for bit, NaN and signed zeros included.
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// df/dx by central differences.
template <class F>
Values gradient_of(F&& f, Values x, double step = 1e-5) {
  Values gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double at = x[i];
    x[i] = at + step;
    const double above = f(x);
    x[i] = at - step;
    gradient[i] = (above - f(x)) / (2 * step);
    x[i] = at;
  }
  return gradient;
}

/// While it lives, the CPU kernels get pieces of exactly one grain, the odd ones first, from
/// behind.
class OddPieces {
 public:
  OddPieces() { kernels::set_parallel_for(run); }
  ~OddPieces() { kernels::set_parallel_for(nullptr); }
  OddPieces(const OddPieces&) = delete;
  OddPieces& operator=(const OddPieces&) = delete;

 private:
  static void run(int64_t size, int64_t grain, void (*body)(void*, int64_t, int64_t),
                  void* context) {
    const int64_t pieces = (size + grain - 1) / grain;
    for (const int64_t parity : {1, 0}) {
      for (int64_t p = pieces - 1; p >= 0; --p) {
        if (p % 2 == parity) body(context, p * grain, std::min(size, (p + 1) * grain));
      }
    }
  }
};

inline const std::vector<Element> kElements{Element::Float32, Element::BFloat16};

}  // namespace moue::test
