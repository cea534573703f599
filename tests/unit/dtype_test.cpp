// Casting weights on the way: which tensors, to which numbers, and what G0 says of it.
#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "checkpoint/floats.h"
#include "checkpoint/manifest.h"
#include "moue/validate.h"
#include "support/files.h"
#include "support/layouts.h"
#include "support/loose_model.h"
#include "support/messages.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

const fs::path kPico = "tests/golden/families/mixtral";
const fs::path kCorrected = "tests/golden/families/deepseek_v3";

ConvertOptions cast_to(const std::string& dtype, const std::string& to = "packed") {
  ConvertOptions options = layout(to);
  options.dtype = dtype;
  return options;
}

Report gates(const fs::path& original, const fs::path& result) {
  ValidateOptions options;
  options.only_bytes = true;
  return validate(open_checkpoint(original), result, options);
}

const Check& check_named(const Report& report, const std::string& name) {
  return *std::ranges::find(report.checks, name, &Check::name);
}

// The nearest of all 65536 values by their distance, ties to the even pattern.
uint16_t nearest_half(float value) {
  uint16_t best = 0;
  double distance = INFINITY;
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const double off = std::abs(static_cast<double>(half_value(static_cast<uint16_t>(bits))) -
                                std::abs(static_cast<double>(value)));
    if (off > distance || (off == distance && bits % 2 == 1)) continue;
    distance = off;
    best = static_cast<uint16_t>(bits);
  }
  return best | (std::signbit(value) ? 0x8000 : 0);
}

// With 16 bits cut off, the value or its neighbour away from zero, whichever is nearer.
uint16_t nearest_bfloat(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto low = static_cast<uint16_t>(bits >> 16);
  const auto high = static_cast<uint16_t>(low + 1);
  const double below = std::abs(static_cast<double>(value) - bfloat_value(low));
  const double above = std::abs(static_cast<double>(value) - bfloat_value(high));
  if (below == above) return low % 2 == 0 ? low : high;
  return below < above ? low : high;
}

}  // namespace

TEST_CASE("halves and bfloats are rounded to the nearest, ties to even") {
  for (uint32_t bits = 0; bits < 1 << 16; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    if (!std::isnan(half_value(half)) && half_of(half_value(half)) != half) FAIL("half " << bits);
    if (!std::isnan(bfloat_value(half)) && bfloat_of(bfloat_value(half)) != half)
      FAIL("bfloat " << bits);
  }
  for (const float value :
       {1.0F / 3, -1e-3F, 6e-8F, 2.9e-8F, 2.99e-8F, 8.9e-8F, 6.1e-5F, 6.0976e-5F, 0.1F, 65503.0F,
        1.00048828125F, 1.00146484375F, -1.0009765F, 3.0517578e-5F, 1234.5F, 0.0F, -0.0F}) {
    INFO(value);
    CHECK(half_of(value) == nearest_half(value));
    CHECK(bfloat_of(value) == nearest_bfloat(value));
  }
  CHECK(half_of(65519.9F) == 0x7bff);
  CHECK(half_of(65520.0F) == 0x7c00);
  CHECK(half_of(-INFINITY) == 0xfc00);
  CHECK(std::isnan(half_value(half_of(NAN))));
  CHECK(std::isnan(bfloat_value(bfloat_of(std::bit_cast<float>(0x7f800001U)))));
}

TEST_CASE("float weights are rounded, the pool's tensors stay, config.json says so") {
  const Scratch scratch;
  to_moue(kPico, scratch / "packed", cast_to("bfloat16"), 4);
  const Checkpoint source = open_checkpoint(kPico), result = open_checkpoint(scratch / "packed");
  for (const TensorInfo& tensor : source.tensors()) {
    INFO(tensor.name);
    REQUIRE(tensor.dtype == Dtype::F32);
    const std::vector<std::byte> from = source.read(tensor);
    const std::vector<std::byte> to = result.read(result.at(tensor.name));
    REQUIRE(to.size() * 2 == from.size());
    size_t wrong = 0;
    for (size_t i = 0; i < to.size() / 2; ++i) {
      float value = 0;
      uint16_t seen = 0;
      std::memcpy(&value, &from[i * 4], 4);
      std::memcpy(&seen, &to[i * 2], 2);
      wrong += seen != nearest_bfloat(value);
    }
    CHECK(wrong == 0);
  }
  CHECK(result.at("moue.experts.1.down.weight").dtype == Dtype::BF16);
  CHECK(result.at("moue.layers.0.router.weight").dtype == Dtype::F32);
  CHECK(result.config().string("dtype", result.config().string("torch_dtype", "")) == "bfloat16");
  CHECK(read_manifest(scratch / "packed").tensors.at("lm_head.weight") ==
        "cast BF16 model-00001-of-00001.safetensors");
  // Cast at once, or of the linked model: the same.
  to_moue(kPico, scratch / "linked", {}, 4);
  relayout(scratch / "linked", scratch / "later", cast_to("bfloat16"));
  CHECK(digests_of(scratch / "later") == digests_of(scratch / "packed"));
}

TEST_CASE("G0 holds cast weights against the source's, rounded, and says it is not bit-equal") {
  const Scratch scratch;
  to_moue(kPico, scratch / "packed", cast_to("bfloat16"), 4);
  const Report report = gates(kPico, scratch / "packed");
  CHECK(report.passed());
  CHECK_THAT(check_named(report, "G0 tensors").note,
             Contains(fmt::format("{} of them equal the source's numbers in BF16, rounded: not "
                                  "bit-equal",
                                  open_checkpoint(kPico).tensors().size())));
  CHECK_THAT(check_named(report, "G1").note, Contains("weights were rounded to BF16"));
  LooseModel model(scratch / "packed");
  model.at(Role::ExpertDown, 2, 1).bytes[10] ^= std::byte{1};
  model.write(scratch / "mutant");
  CHECK_THAT(check_named(gates(kPico, scratch / "mutant"), "G0 tensors").note,
             Contains("differs from the source's, rounded, from byte 10"));
  LooseModel donors(scratch / "packed");
  donors.at("moue.experts.2.up.weight").bytes[6] ^= std::byte{1};
  donors.write(scratch / "donor");
  CHECK_THAT(check_named(gates(kPico, scratch / "donor"), "G0 start values").note,
             Contains("moue.experts.2.up.weight differs from its donor's"));
}

TEST_CASE("widened and narrowed again, every number is back; G1 then applies") {
  const Scratch scratch;
  relayout(kPico, scratch / "half", cast_to("float16", "export"));
  to_moue(scratch / "half", scratch / "wide", cast_to("float32"));
  const Report report = gates(scratch / "half", scratch / "wide");
  CHECK(report.passed());
  CHECK(std::ranges::count(report.checks, "G1", &Check::name) == 0);
  CHECK_THAT(check_named(report, "G0 tensors").note, Contains("numbers in F32"));
  relayout(scratch / "wide", scratch / "back", cast_to("float16", "export"));
  CHECK(digests_of(scratch / "back") == digests_of(scratch / "half"));
  CHECK(digests_of(scratch / "back") != digests_of(kPico));
}

TEST_CASE("corrections of the choice keep their type") {
  const Scratch scratch;
  relayout(kCorrected, scratch / "export", cast_to("bfloat16", "export"));
  const Checkpoint result = open_checkpoint(scratch / "export");
  CHECK(result.at("model.layers.1.mlp.gate.e_score_correction_bias").dtype == Dtype::F32);
  CHECK(result.at("model.layers.1.mlp.gate.weight").dtype == Dtype::BF16);
}

TEST_CASE("a number that the type cannot hold is refused by name") {
  const Scratch scratch;
  LooseModel model(kPico);
  const std::string name = "model.layers.1.input_layernorm.weight";
  model.floats(name)[5] = 70000;
  model.write(scratch / "large");
  const std::string message = message_of(
      [&] { relayout(scratch / "large", scratch / "out", cast_to("float16", "export")); });
  CHECK(contains(message, name + " holds 70000 at index 5, too large for F16"));
  CHECK_FALSE(fs::exists(scratch / "out"));
  CHECK_NOTHROW(relayout(scratch / "large", scratch / "out", cast_to("bfloat16", "export")));
}
