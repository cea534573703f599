// The order of training data: identity or a keyed permutation of the windows of each epoch.
#include "tokens/order.h"

#include "core/philox.h"
#include "moue/error.h"

#include <bit>
#include <cassert>

namespace moue {

Order order_of(std::string_view name) {
  if (name == "shuffled") return Order::Shuffled;
  if (name == "sequential") return Order::Sequential;
  fail("tokens", "no order '{}'; known: sequential, shuffled", name);
}

uint64_t permuted(uint64_t index, uint64_t size, uint64_t key, uint64_t tweak) {
  assert(index < size);
  constexpr uint32_t kRounds = 6;
  const int bits = std::bit_width(size - 1);
  const int half = bits < 2 ? 1 : (bits + 1) / 2;
  const uint64_t mask = (uint64_t{1} << half) - 1;
  const uint32_t tweak_low = static_cast<uint32_t>(tweak);
  const uint32_t tweak_high = static_cast<uint32_t>(tweak >> 32);
  // The network permutes 2 * half bits, fewer than 4 * size values: walking on along the cycle
  // until a value below size appears is a bijection of 0..size-1, after fewer than four tries on
  // average.
  do {
    uint64_t left = index >> half, right = index & mask;
    for (uint32_t round = 0; round < kRounds; ++round) {
      const PhiloxBlock block =
          philox(key, {static_cast<uint32_t>(right), round, tweak_low, tweak_high});
      const uint64_t mixed = (left ^ block[0]) & mask;
      left = right;
      right = mixed;
    }
    index = left << half | right;
  } while (index >= size);
  return index;
}

uint64_t DataOrder::window(uint64_t number) const {
  constexpr uint64_t kDomain = 0x746f6b656e73;  // apart from other draws under the same seed
  constexpr uint64_t kGolden = 0x9E3779B97F4A7C15;
  const uint64_t size = static_cast<uint64_t>(windows);
  const uint64_t key = (seed ^ kDomain) + source * kGolden;
  if (order == Order::Sequential) return number % size;
  return permuted(number % size, size, key, number / size);
}

uint64_t DataOrder::position(int64_t step, int64_t row) const {
  const uint64_t number =
      static_cast<uint64_t>(step) * static_cast<uint64_t>(batch) + static_cast<uint64_t>(row);
  return window(number) * static_cast<uint64_t>(length);
}

double DataOrder::epochs(int64_t step) const {
  return static_cast<double>(step) * static_cast<double>(batch) / static_cast<double>(windows);
}

}  // namespace moue
