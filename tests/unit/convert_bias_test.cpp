// convert in families with a router bias or a correction: foreign slots start as at home.
#include <catch2/catch.hpp>

#include "moue/convert.h"
#include "support/loose_model.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

const char* const kCorrected = "tests/golden/packed/fp8_plain";  // DeepSeek-V3
const char* const kBiased = "tests/golden/packed/mxfp4_plain";   // gpt-oss

Plan plan_of(const Checkpoint& source) {
  PlanOptions options;
  options.topology = "one_pool";
  return make_plan(source, family_of(source.config()), nullptr, options);
}

// A role's numbers of each foreign slot's home expert.
std::vector<float> at_home(const Checkpoint& source, const Pool& pool, int64_t layer, Role role) {
  const Claims claims = claim(source, family_of(source.config()));
  std::vector<float> result;
  for (int64_t i = 0; i < pool.num_foreign(layer); ++i) {
    const Home home = pool.home[pool.slots[layer][pool.experts_per_layer + i]];
    const TensorInfo& tensor = claims.at(role, pool.moe_layers[home.layer]);
    const auto values = source.files()[tensor.file].values(tensor.name);
    result.push_back(static_cast<float>(values[home.expert]));
  }
  return result;
}

std::vector<float> floats(LooseModel& model, const std::string& name) {
  const auto values = model.floats(name);
  return {values.begin(), values.end()};
}

bool has(const Checkpoint& checkpoint, const std::string& name) {
  return checkpoint.find(name) != nullptr;
}

Statistics measured(const Plan& plan, bool corrected) {
  Statistics s;
  s.fingerprint = plan.fingerprint;
  s.slots = plan.pool.slots;
  for (int64_t layer = 0; layer < plan.pool.num_moe_layers(); ++layer) {
    const auto foreign = static_cast<size_t>(plan.pool.num_foreign(layer));
    s.beta.emplace_back(foreign, 0.25);
    s.scale.emplace_back(foreign, 1.5);
    if (corrected) s.correction.emplace_back(foreign, -0.75);
  }
  return s;
}

}  // namespace

TEST_CASE("a foreign slot's correction starts as at home") {
  const Scratch scratch;
  const Checkpoint source = open_checkpoint(kCorrected);
  convert(source, plan_of(source), nullptr, scratch / "out", {});
  LooseModel model(scratch / "out");
  for (int64_t layer = 0; layer < model.pool.num_moe_layers(); ++layer) {
    const auto wanted = at_home(source, model.pool, layer, Role::RouterCorrection);
    REQUIRE(wanted.size() > 0);
    CHECK(floats(model, names::router_correction(layer)) == wanted);
    CHECK(wanted.front() != 0);
    CHECK(floats(model, names::router_bias(layer)) == std::vector<float>(wanted.size()));
  }
  const Checkpoint result = open_checkpoint(scratch / "out");
  CHECK_NOTHROW(
      check_pool_fits(model.pool, family_of(source.config()).spec(source.config()), result));

  model.erase(names::router_correction(1));
  model.write(scratch / "less");
  CHECK_THROWS_WITH(check_pool_fits(model.pool, family_of(source.config()).spec(source.config()),
                                    open_checkpoint(scratch / "less")),
                    Contains(names::router_correction(1) + " is missing"));
}

TEST_CASE("a foreign slot's beta starts as the router's bias at home") {
  const Scratch scratch;
  const Checkpoint source = open_checkpoint(kBiased);
  convert(source, plan_of(source), nullptr, scratch / "out", {});
  LooseModel model(scratch / "out");
  for (int64_t layer = 0; layer < model.pool.num_moe_layers(); ++layer) {
    const auto wanted = at_home(source, model.pool, layer, Role::RouterBias);
    REQUIRE(wanted.size() > 0);
    CHECK(floats(model, names::router_bias(layer)) == wanted);
    CHECK(wanted.front() != 0);
  }
  CHECK_FALSE(has(open_checkpoint(scratch / "out"), names::router_correction(0)));
}

TEST_CASE("measured corrections go into the model, and must be there") {
  const Scratch scratch;
  const Checkpoint source = open_checkpoint(kCorrected);
  const Plan plan = plan_of(source);
  Statistics statistics = measured(plan, true);
  convert(source, plan, &statistics, scratch / "out", {});
  LooseModel model(scratch / "out");
  CHECK(floats(model, names::router_correction(1)).front() == -0.75F);
  CHECK(floats(model, names::router_bias(1)).front() == 0.25F);

  statistics = measured(plan, false);
  CHECK_THROWS_WITH(convert(source, plan, &statistics, scratch / "none", {}),
                    Contains("[convert]") && Contains("were measured for another plan"));
  statistics = measured(plan, true);
  statistics.correction[1].pop_back();
  CHECK_THROWS_WITH(convert(source, plan, &statistics, scratch / "none", {}),
                    Contains("the statistics' correction of MoE layer 1 has"));
  const Checkpoint biased = open_checkpoint(kBiased);
  const Plan other = plan_of(biased);
  statistics = measured(other, true);
  CHECK_THROWS_WITH(convert(biased, other, &statistics, scratch / "none", {}),
                    Contains("were measured for another plan"));
}
