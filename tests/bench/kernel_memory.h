// What the benchmark's cases are made of: memory that lives as long as the case, and its arguments.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/kernel_cases.h"
#include "core/philox.h"
#include "support/kernel_device.h"

namespace moue::bench {

using kernels::Element;
using kernels::Where;
namespace device = moue::test::device;

inline int64_t size_of(Element element) { return element == Element::Float32 ? 4 : 2; }

/// Memory that lives as long as the case.
class Memory {
 public:
  explicit Memory(Where where) : where_(where) {}

  template <class T>
  T* take(int64_t size) {
    return static_cast<T*>(bytes(size * static_cast<int64_t>(sizeof(T))));
  }
  template <class T>
  T* copy_of(const std::vector<T>& values) {
    T* memory = take<T>(static_cast<int64_t>(values.size()));
    const size_t bytes = values.size() * sizeof(T);
    where_.cuda ? device::to_device(memory, values.data(), bytes)
                : (void)std::memcpy(memory, values.data(), bytes);
    return memory;
  }
  /// Numbers in [-1, 1) that repeat after a while.
  void* numbers(Element element, int64_t size) {
    constexpr int64_t kPeriod = 4099;
    std::vector<uint16_t> raw(static_cast<size_t>(size * size_of(element) / 2));
    const int64_t halves = size_of(element) / 2;
    for (int64_t i = 0; i < std::min(size, kPeriod); ++i) {
      const auto draw = philox(1, {static_cast<uint32_t>(i), 0, 0, 0})[0];
      const float x = static_cast<float>(draw / 2147483648.0 - 1.0);
      uint32_t bits;
      std::memcpy(&bits, &x, sizeof bits);
      raw[i * halves + halves - 1] = static_cast<uint16_t>(bits >> 16);
    }
    for (int64_t at = kPeriod; at < size; at += kPeriod)
      std::memcpy(&raw[at * halves], raw.data(),
                  static_cast<size_t>(std::min(kPeriod, size - at) * halves * 2));
    return copy_of(raw);
  }
  float* floats(int64_t size) { return static_cast<float*>(numbers(Element::Float32, size)); }

 private:
  void* bytes(int64_t size) {
    const auto wanted = static_cast<size_t>(std::max<int64_t>(size, 16));
    if (where_.cuda) {
      owned_.emplace_back(device::allocate(wanted), device::release);
    } else {
      void* memory = std::aligned_alloc(64, (wanted + 63) / 64 * 64);
      std::memset(memory, 0, wanted);  // pages are there before the clock runs
      owned_.emplace_back(memory, std::free);
    }
    return owned_.back().get();
  }

  Where where_;
  std::vector<std::shared_ptr<void>> owned_;
};

template <class Args>
Case make_case(std::string name, std::string shape, double bytes, std::shared_ptr<Memory> memory,
               void (*kernel)(const Args&, Where), const Args& args, Where where) {
  return {std::move(name), std::move(shape), bytes,
          [memory, kernel, args, where] { kernel(args, where); }};
}

}  // namespace moue::bench
