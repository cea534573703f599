// Philox4x32-10 against the known answers of its authors' library (Random123, kat_vectors).
#include <catch2/catch.hpp>

#include "core/philox.h"

using moue::philox;
using moue::PhiloxBlock;

TEST_CASE("philox gives its authors' numbers") {
  CHECK(philox(0, {0, 0, 0, 0}) == PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox(~uint64_t{0}, {~0u, ~0u, ~0u, ~0u}) ==
        PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox(0x299f31d0a4093822, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}) ==
        PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("philox sees every bit of key and counter") {
  const PhiloxBlock plain = philox(7, {1, 2, 3, 4});
  for (int bit = 0; bit < 64; ++bit) CHECK(philox(7 ^ (uint64_t{1} << bit), {1, 2, 3, 4}) != plain);
  for (int word = 0; word < 4; ++word) {
    PhiloxBlock counter{1, 2, 3, 4};
    counter[word] ^= 0x80000000;
    CHECK(philox(7, counter) != plain);
  }
}
