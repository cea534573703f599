// Mode expand: the ring of new experts, donors, refusals, what convert writes and G0 finds.
#include "support/files.h"
#include "support/headers_only.h"
#include "support/loose_model.h"
#include "support/mutants.h"
#include "support/scratch.h"

#include "moue/convert.h"
#include "moue/plan.h"
#include "moue/validate.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <set>

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

const std::vector<std::string> kSources = {
    "tests/golden/families/mixtral", "tests/golden/families/qwen3_moe", "examples/tiny-mixtral"};
const fs::path kTiny = "examples/tiny-mixtral";

Plan plan_of(const PlanOptions& options, const fs::path& model = kTiny,
             const Statistics* statistics = nullptr) {
  const Checkpoint source = open_checkpoint(model);
  return make_plan(source, family_of(source.config()), statistics, options);
}

PlanOptions expand(int64_t experts, const std::string& topology = "vanilla",
                   const std::string& donors = "") {
  return {.mode = "expand", .experts = experts, .donors = donors, .topology = topology};
}

std::vector<Home> donors_of(const Plan& plan) {
  return {plan.pool.home.begin() + plan.pool.num_source(), plan.pool.home.end()};
}

std::string refusal(const PlanOptions& options) {
  return message_of([&] { plan_of(options); });
}

Statistics loads(const Checkpoint& source) {
  Statistics statistics;
  statistics.fingerprint = fingerprint(source, family_of(source.config()));
  statistics.load.assign(8, std::vector<double>(8, 1.0 / 8));
  return statistics;
}

std::string found_by(const Checkpoint& source, const fs::path& result) {
  std::string gates;
  ValidateOptions options;
  options.only_bytes = true;
  for (const Check& check : validate(source, result, options).checks) {
    if (check.outcome == Outcome::Fail) gates += check.name + ": " + check.note + "; ";
  }
  return gates;
}

}  // namespace

TEST_CASE("the ring of new experts: own experts, then the window behind the source's") {
  // 8 layers of 8 experts, 16 new ones: two for each layer.
  const Plan vanilla = plan_of(expand(16));
  CHECK(vanilla.pool.mode == Mode::Expand);
  CHECK(vanilla.pool.num_physical() == 80);
  CHECK(vanilla.pool.topology.boundary == Boundary::Ring);
  for (int64_t layer = 0; layer < 8; ++layer) {
    std::vector<int32_t> wanted(8);
    std::iota(wanted.begin(), wanted.end(), static_cast<int32_t>(8 * layer));
    wanted.push_back(static_cast<int32_t>(64 + 2 * layer));
    wanted.push_back(static_cast<int32_t>(65 + 2 * layer));
    CHECK(vanilla.pool.slots[layer] == wanted);
  }
  const Plan sliding = plan_of(expand(16, "sliding"));
  CHECK(sliding.pool.slots[0] ==
        std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 78, 79, 64, 65, 66, 67});
  const std::vector<int64_t> shared = sharing(sliding.pool.slots, 80);
  CHECK(std::all_of(shared.begin(), shared.begin() + 64, [](int64_t c) { return c == 1; }));
  CHECK(std::all_of(shared.begin() + 64, shared.end(), [](int64_t c) { return c == 3; }));
  CHECK(plan_of(expand(16, "one_pool")).pool.slots[5].size() == 24);
  // Fewer new experts than layers: neighbours share them.
  CHECK(plan_of(expand(3, "aligned")).pool.slots[7] ==
        std::vector<int32_t>{56, 57, 58, 59, 60, 61, 62, 63, 64, 65});
  PlanOptions strided = expand(16);
  strided.stride = 5;
  strided.window = 4;
  CHECK(plan_of(strided).pool.slots[1] ==
        std::vector<int32_t>{8, 9, 10, 11, 12, 13, 14, 15, 66, 71, 76, 65});
}

TEST_CASE("even donors are spread over depth") {
  const std::vector<Home> eight = donors_of(plan_of(expand(8)));
  for (int32_t j = 0; j < 8; ++j) CHECK(eight[j] == Home{j, j});
  const std::vector<Home> many = donors_of(plan_of(expand(20)));
  for (int32_t j = 0; j < 20; ++j) CHECK(many[j] == Home{j * 8 / 20, j % 8});
}

TEST_CASE("donors by load are the most used, ties by lower number, in order of depth") {
  const Checkpoint source = open_checkpoint(kTiny);
  Statistics statistics = loads(source);
  statistics.load[6] = {0.1, 0.1, 0.1, 0.3, 0.1, 0.1, 0.1, 0.1};
  statistics.load[2] = {0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.15, 0.25};
  const auto by_load = [&](int64_t count, const std::string& donors = "load") {
    return donors_of(plan_of(expand(count, "vanilla", donors), kTiny, &statistics));
  };
  CHECK(by_load(4) == std::vector<Home>{{0, 0}, {2, 6}, {2, 7}, {6, 3}});
  CHECK(by_load(4, "") == by_load(4));  // with statistics it is the default
  CHECK(by_load(4, "even") == donors_of(plan_of(expand(4))));
  CHECK(plan_of(expand(4), kTiny, &statistics).notes.empty());
  const std::vector<Home> all = by_load(66);  // every expert once, the best two again
  CHECK(std::ranges::count(all, Home{6, 3}) == 2);
  CHECK(std::ranges::count(all, Home{2, 7}) == 2);
  CHECK(std::ranges::count(all, Home{2, 6}) == 1);
  CHECK(contains(refusal(expand(4, "vanilla", "load")),
                 "[plan] donors are chosen by load, no statistics are given; run moue measure"));
}

TEST_CASE("donors by weight have the largest product of norms") {
  const Checkpoint source = open_checkpoint("tests/golden/families/qwen3_moe");
  const Claims claims = claim(source, family_of(source.config()));
  std::vector<std::pair<double, Home>> products;
  for (int32_t layer = 0; layer < 2; ++layer) {
    for (int32_t expert = 0; expert < 7; ++expert) {
      double product = 1;
      for (const Role role : {Role::ExpertGate, Role::ExpertUp, Role::ExpertDown}) {
        const TensorInfo& tensor = claims.at(role, layer == 0 ? 1 : 3, expert);
        double squares = 0;
        for (const double value : source.files()[tensor.file].values(tensor.name))
          squares += value * value;
        product *= std::sqrt(squares);
      }
      products.push_back({product, {layer, expert}});
    }
  }
  std::ranges::sort(products, [](const auto& a, const auto& b) { return a.first > b.first; });
  const std::vector<Home> donors =
      donors_of(plan_of(expand(3, "one_pool", "weight"), "tests/golden/families/qwen3_moe"));
  for (const Home donor : donors) {
    CHECK(std::any_of(products.begin(), products.begin() + 3,
                      [&](const auto& entry) { return entry.second == donor; }));
  }
  CHECK(std::set<int32_t>{donors[0].expert, donors[1].expert, donors[2].expert} !=
        std::set<int32_t>{0, 1, 2});  // control: not simply the first
}

TEST_CASE("an expansion refuses what it cannot mean") {
  CHECK(contains(refusal({.mode = "grow"}), "mode is 'grow', wanted one of: reuse, expand"));
  CHECK(contains(refusal(expand(0)), "[plan] experts is 0, wanted 1 to 1048576"));
  CHECK(contains(refusal({.experts = 4}), "experts is 4, wanted 0 in mode reuse"));
  CHECK(contains(refusal(expand(4, "vanilla", "best")),
                 "donors is 'best', wanted one of: even, load, weight"));
  CHECK(contains(refusal(expand(4, "similarity")),
                 "topology similarity: mode is expand, wanted reuse"));
  PlanOptions wide = expand(6);
  wide.window = 7;
  CHECK(
      contains(refusal(wide), "a window of 7 with stride 1 shows an expert twice on a ring of 6"));
  wide.window = 4;
  wide.stride = 2;
  CHECK(contains(refusal(wide), "a window of 4 with stride 2 shows an expert twice"));
  wide.stride = {};
  wide.window = 3;
  wide.max_sharing = 2;
  CHECK(contains(refusal(wide), "of 70 experts are listed by more layers than max_sharing 2"));
  wide.boundary = "clamp";
  wide.stride = 2;
  CHECK(contains(refusal(wide), "stride is 2, wanted 1 with boundary clamp"));
  PlanOptions huge = expand(5000);
  huge.window = 4089;
  CHECK(contains(refusal(huge), "more slots than the kernels hold, wanted at most 4088"));
  CHECK(contains(refusal([] {
                   PlanOptions options = expand(4);
                   options.group = 5;
                   return options;
                 }()),
                 "group is 5, wanted 1 to 4"));
}

TEST_CASE("a plan of an expansion is read back, reported and drawn") {
  const Scratch scratch;
  const Plan plan = plan_of(expand(16, "half_staggered"));
  write_plan(plan, scratch / "plan.json");
  const Plan again = read_plan(scratch / "plan.json");
  CHECK(again.pool.home == plan.pool.home);
  CHECK(again.pool.slots == plan.pool.slots);
  CHECK(again.pool.topology.ring == 16);
  const Checkpoint source = open_checkpoint(kTiny);
  const Report report = report_of(plan, source);
  const auto fact = [&](const std::string& key) {
    return std::get<int64_t>(std::ranges::find(report.facts, key, &Fact::key)->value);
  };
  const Claims claims = claim(source, family_of(source.config()));
  const auto one = static_cast<int64_t>(claims.at(Role::ExpertGate, 0, 0).bytes);
  CHECK(fact("new_experts") == 16);
  CHECK(fact("new_expert_bytes") == 16 * 3 * one);
  CHECK(fact("new_bytes") > fact("new_expert_bytes"));
  const std::string picture = picture_of(plan);
  CHECK(contains(picture, "<title>layer 0: own experts 0 to 7</title>"));
  CHECK(contains(picture, "<title>layer 0: foreign experts 64 to 69</title>"));
}

TEST_CASE("convert writes the donors' bytes under new names, and nothing else changes") {
  for (const std::string& from : kSources) {
    INFO(from);
    const Scratch scratch;
    const auto before = snapshot(from);
    const Checkpoint source = open_checkpoint(from);
    const Plan plan = plan_of(expand(5, "sliding"), from);
    const Report report = convert(source, plan, nullptr, scratch / "out", {});
    CHECK(snapshot(from) == before);
    const Checkpoint result = open_checkpoint(scratch / "out");
    const Claims claims = claim(source, family_of(source.config()));
    const ModelSpec spec = family_of(source.config()).spec(source.config());
    const Pool pool = read_pool(result.config());
    CHECK(pool.num_new() == 5);
    for (int64_t j = 0; j < 5; ++j) {
      const Home donor = pool.home[pool.num_source() + j];
      const Home other = pool.home[pool.num_source() + (j + 1) % 5];
      for (const ExpertTensor& tensor : expert_tensors(j, spec)) {
        const TensorInfo& seen = result.at(tensor.name);
        const TensorInfo& wanted =
            claims.at(tensor.role, pool.moe_layers[donor.layer], donor.expert);
        CHECK(seen.shape == wanted.shape);
        CHECK(seen.dtype == wanted.dtype);
        CHECK(result.read(seen) == source.read(wanted));
        CHECK(result.read(seen) !=
              source.read(claims.at(tensor.role, pool.moe_layers[other.layer], other.expert)));
      }
    }
    for (const TensorInfo& tensor : source.tensors())
      CHECK(result.read(result.at(tensor.name)) == source.read(tensor));
    CHECK_NOTHROW(claim(result, family_of(result.config())));
    CHECK(found_by(source, scratch / "out") == "");
    CHECK(fs::exists(scratch / "out/model-moue-experts-00001-of-00001.safetensors"));
  }
}

TEST_CASE("calibration of another expansion is refused") {
  const Scratch scratch;
  const Checkpoint source = open_checkpoint(kTiny);
  const Plan plan = plan_of(expand(8));
  Statistics statistics = loads(source);
  statistics.slots = plan.pool.slots;
  statistics.donors = donors_of(plan);
  for (int64_t layer = 0; layer < 8; ++layer) {
    statistics.beta.emplace_back(plan.pool.num_foreign(layer), -1.0);
    statistics.scale.emplace_back(plan.pool.num_foreign(layer), 2.0);
  }
  CHECK_NOTHROW(convert(source, plan, &statistics, scratch / "a", {}));
  std::swap(statistics.donors[0], statistics.donors[1]);
  CHECK(contains(message_of([&] { convert(source, plan, &statistics, scratch / "b", {}); }),
                 "measured for another plan"));
}

TEST_CASE("every mutant of a new expert is found without a forward pass") {
  const Scratch scratch;
  const Checkpoint source = open_checkpoint("tests/golden/families/qwen3_moe");
  convert(source, plan_of(expand(4, "one_pool"), "tests/golden/families/qwen3_moe"), nullptr,
          scratch / "good", {});
  REQUIRE(found_by(source, scratch / "good") == "");
  const std::string gate = "moue.experts.1.gate.weight", up = "moue.experts.1.up.weight",
                    down = "moue.experts.2.down.weight";
  const std::vector<Mutant> mutants = {
      {"flip a bit", "G0 start values: " + gate + " differs from its donor's (MoE layer ",
       [&](LooseModel& m) { m.at(gate).bytes.at(7) ^= std::byte{1}; }},
      {"zero a projection", "G0 start values",
       [&](LooseModel& m) { std::ranges::fill(m.at(down).bytes, std::byte{0}); }},
      {"swap gate and up", "G0 start values",
       [&](LooseModel& m) { std::swap(m.at(gate).bytes, m.at(up).bytes); }},
      {"swap two new experts", "G0 start values",
       [&](LooseModel& m) {
         std::swap(m.at(gate).bytes, m.at("moue.experts.2.gate.weight").bytes);
       }},
      {"name another donor", "G0 start values",
       [&](LooseModel& m) {
         auto& home = m.config["moue"]["home"];
         std::swap(home[14], home[15]);
       }},
      {"delete a projection", "G0 structure", [&](LooseModel& m) { m.erase(up); }},
      {"turn a shape", "G0 structure",
       [&](LooseModel& m) { std::ranges::reverse(m.at(down).shape); }},
      {"one expert too many", "G0 structure",
       [&](LooseModel& m) {
         LooseTensor extra = m.at(gate);
         extra.name = "moue.experts.4.gate.weight";
         m.add(extra);
       }},
      {"integers for weights", "G0 structure",
       [&](LooseModel& m) { m.at(gate).dtype = Dtype::I32; }},
      {"list an expert of another layer", "G0 structure",
       [&](LooseModel& m) { m.config["moue"]["slots"][0].back() = 7; }},
  };
  for (const Mutant& mutant : mutants) {
    INFO(mutant.name);
    write_mutant(mutant, scratch / "good", scratch / "mutant");
    const std::string seen = found_by(source, scratch / "mutant");
    INFO(seen);
    CHECK(contains(seen, mutant.found_by));
    fs::remove_all(scratch / "mutant");
  }
}
