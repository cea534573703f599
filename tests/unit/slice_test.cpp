// Slices: packed numbers against torch's and numpy's, and every way a matrix lies in a tensor.
#include "moue/family.h"

#include "checkpoint/floats.h"
#include "moue/checkpoint.h"
#include "support/headers_only.h"

#include <catch2/catch.hpp>

#include <bit>
#include <cmath>
#include <cstring>

using namespace moue;

namespace {

std::vector<float> floats(const Checkpoint& checkpoint, const Slice& slice) {
  std::vector<float> values(static_cast<size_t>(slice.rows * slice.columns));
  read_slice(checkpoint, slice, values);
  return values;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Every role of every layer of two directories, compared bit by bit; how many were packed.
int64_t compare_all(const Checkpoint& packed, const Checkpoint& plain, bool& all_equal) {
  const Family& family = family_of(packed.config());
  const Claims a = claim(packed, family), b = claim(plain, family);
  const ModelSpec spec = family.spec(packed.config());
  int64_t seen = 0;
  for (int role = 0; role < static_cast<int>(Role::Scale); ++role) {
    for (int64_t layer = -1; layer < spec.layers; ++layer) {
      for (int64_t expert = -1; expert < spec.experts; ++expert) {
        const auto left = a.slice(static_cast<Role>(role), layer, expert);
        const auto right = b.slice(static_cast<Role>(role), layer, expert);
        if (!left || !right) continue;
        seen += left->packing != Packing::Plain;
        all_equal = all_equal && same_bits(floats(packed, *left), floats(plain, *right));
      }
    }
  }
  return seen;
}

}  // namespace

TEST_CASE("small floats: every bit pattern has its value") {
  CHECK(fp8_e4m3_value(0x08) == std::ldexp(1.0f, -6));
  CHECK(fp8_e4m3_value(0x01) == std::ldexp(1.0f, -9));
  CHECK(fp8_e4m3_value(0x7e) == 448.0f);
  CHECK(fp8_e4m3_value(0xfe) == -448.0f);
  CHECK(std::isnan(fp8_e4m3_value(0x7f)));
  CHECK(std::isnan(fp8_e4m3_value(0xff)));
  CHECK(std::signbit(fp8_e4m3_value(0x80)));
  CHECK(fp8_e5m2_value(0x7b) == 57344.0f);
  CHECK(std::isinf(fp8_e5m2_value(0x7c)));
  CHECK(std::isnan(fp8_e5m2_value(0x7d)));
  CHECK(half_value(0x3c00) == 1.0f);
  CHECK(half_value(0x0001) == std::ldexp(1.0f, -24));
  CHECK(half_value(0xfbff) == -65504.0f);
  CHECK(bfloat_value(0xbf80) == -1.0f);
  const std::vector<float> wanted = {0, .5, 1, 1.5, 2, 3, 4, 6};
  for (uint8_t bits = 0; bits < 8; ++bits) {
    CHECK(fp4_value(bits) == wanted[bits]);
    CHECK(fp4_value(bits | 8) == -wanted[bits]);
  }
}

TEST_CASE("FP8 with block scales is unpacked as torch does, bit for bit") {
  const Checkpoint packed = open_checkpoint("tests/golden/packed/fp8");
  bool all_equal = true;
  // 4 layers of 6 latent projections, 1 dense block, 3 shared experts, 3 layers of 8 experts
  CHECK(compare_all(packed, open_checkpoint("tests/golden/packed/fp8_plain"), all_equal) >= 100);
  CHECK(all_equal);
  CHECK(claim(packed, family_of(packed.config())).is_packed());
}

TEST_CASE("MXFP4 is unpacked as numpy does, bit for bit") {
  const Checkpoint packed = open_checkpoint("tests/golden/packed/mxfp4");
  const Checkpoint plain = open_checkpoint("tests/golden/packed/mxfp4_plain");
  bool all_equal = true;
  CHECK(compare_all(packed, plain, all_equal) == 2 * 5 * 3);
  CHECK(all_equal);
  CHECK(claim(packed, family_of(packed.config())).form() == "MXFP4");
  CHECK_FALSE(claim(plain, family_of(plain.config())).is_packed());

  // Other numbers are told apart.
  const Claims claims = claim(packed, family_of(packed.config()));
  CHECK_FALSE(same_bits(floats(packed, *claims.slice(Role::ExpertGate, 0, 0)),
                        floats(packed, *claims.slice(Role::ExpertUp, 0, 0))));
}

TEST_CASE("a MoE of stacked, interleaved and transposed experts has them where the file does") {
  const Checkpoint source = open_checkpoint("tests/golden/packed/mxfp4_plain");
  const Claims claims = claim(source, family_of(source.config()));
  const TensorInfo& gate_up = source.at("model.layers.1.mlp.experts.gate_up_proj");
  const std::vector<double> all = source.files()[gate_up.file].values(gate_up.name);
  const int64_t D = 32, F = 32;
  for (int64_t expert = 0; expert < 5; ++expert) {
    for (const bool up : {false, true}) {
      const Slice slice = *claims.slice(up ? Role::ExpertUp : Role::ExpertGate, 1, expert);
      CHECK(slice.rows == F);
      CHECK(slice.columns == D);
      CHECK_FALSE(slice.is_contiguous());
      const std::vector<float> values = floats(source, slice);
      bool equal = true;
      for (int64_t f = 0; f < F; ++f) {
        for (int64_t d = 0; d < D; ++d) {
          const double wanted = all[static_cast<size_t>(((expert * D) + d) * 2 * F + 2 * f + up)];
          equal = equal && values[static_cast<size_t>(f * D + d)] == static_cast<float>(wanted);
        }
      }
      CHECK(equal);
    }
  }
  CHECK_FALSE(claims.slice(Role::SharedGate, 0));
}
