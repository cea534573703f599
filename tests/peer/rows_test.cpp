// What the CPU kernels compute with: fast_exp and bfloat16 rounding.
#include "support/kernel_test.h"
//
#include "kernels/rows.h"

using namespace moue;
using namespace moue::test;

TEST_CASE("fast_exp is good to 2e-7", "[peer][kernels]") {
  double worst = 0;
  for (float x = -87.0f; x <= 88.0f; x += 1.0f / 4096) {
    worst = std::max(worst, std::abs(kernels::fast_exp(x) / std::exp(static_cast<double>(x)) - 1));
  }
  CHECK(worst <= tolerance::kFastExp);
  CHECK(kernels::fast_exp(0.0f) == 1.0f);
  CHECK(kernels::fast_exp(-1000.0f) == kernels::fast_exp(-87.0f));
  CHECK(kernels::fast_exp(1000.0f) == kernels::fast_exp(88.0f));
  CHECK(std::isnan(kernels::fast_exp(std::numeric_limits<float>::quiet_NaN())));
}

TEST_CASE("bfloat16 rounds to nearest even", "[peer][kernels]") {
  for (uint32_t high = 0; high < 0x7f80; high += 7) {  // every binade, both signs
    for (const uint32_t low : {0x0u, 0x1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const float x = std::bit_cast<float>(high << 16 | low);
      for (const float value : {x, -x}) {
        kernels::Bf16 stored;
        kernels::store(stored, value);
        if (high >= 0x80 && high < 0x7f7f)  // normal numbers that stay finite
          CHECK(kernels::load(stored) == round_to(Element::BFloat16, value));
      }
    }
  }
  kernels::Bf16 stored;
  kernels::store(stored,
                 std::bit_cast<float>(0x7f800001u));  // a NaN that truncation makes infinite
  CHECK(std::isnan(kernels::load(stored)));
}
