// Philox4x32-10: random numbers as a pure function of a key and a counter (Salmon et al., SC 2011).
#pragma once

#include <array>
#include <cstdint>

namespace moue {

using PhiloxBlock = std::array<uint32_t, 4>;

/// The four numbers of a counter under a key; the same on every machine.
constexpr PhiloxBlock philox(uint64_t key, PhiloxBlock counter) {
  uint32_t low = static_cast<uint32_t>(key);
  uint32_t high = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ low, static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ high, static_cast<uint32_t>(a)};
    low += 0x9E3779B9;
    high += 0xBB67AE85;
  }
  return counter;
}

}  // namespace moue
