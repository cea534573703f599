// Pools: the block on disk and its refusals, exposure and target share, schedules; against
// tests/golden/moue.
#include "moue/pool.h"

#include "core/philox.h"
#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/plan.h"
#include "pool/schedule.h"
#include "support/headers_only.h"
#include "support/scratch.h"
#include "support/tolerances.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <cmath>
#include <numeric>
#include <random>

using namespace moue;
using moue::test::contains;
using moue::test::message_of;

namespace {

const std::vector<std::string> kGolden = {"aligned", "half_staggered", "ring_stride"};

std::filesystem::path golden(const std::string& name) { return "tests/golden/moue/" + name; }
Config golden_config(const std::string& name) {
  return Config::read(golden(name) / "model/config.json");
}

// The golden block with one change, as a JSON patch that is applied by `edit`.
template <class Edit>
std::string refusal(Edit&& edit) {
  nlohmann::ordered_json json = golden_config("aligned").json();
  edit(json["moue"]);
  return message_of([&] { read_pool(Config(json, "config.json")); });
}

Visibility golden_visibility(const std::string& name, const Pool& pool) {
  const SafetensorsFile file(golden(name) / "model/model-moue.safetensors");
  Visibility m = open_visibility(pool);
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    const std::vector<double> foreign = file.values(names::router_visibility(layer));
    std::copy(foreign.begin(), foreign.end(), m[layer].begin() + pool.experts_per_layer);
  }
  return m;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return HUGE_VAL;
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

double sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

TEST_CASE("the golden blocks are read") {
  for (const std::string& name : kGolden) {
    const Pool pool = read_pool(golden_config(name));
    CHECK(pool.num_moe_layers() == 6);
    CHECK(pool.experts_per_layer == 5);
    CHECK(pool.num_physical() == 30);
    CHECK(pool.home[13] == Home{2, 3});
    CHECK(pool.base_model_type == "mixtral");
    CHECK(pool.state == PoolState::Opened);
    CHECK(pool.state_dim == 7);
    CHECK_FALSE(pool.calibrated);
    CHECK(make_slots(pool.topology) == pool.slots);
  }
  const Pool ring = read_pool(golden_config("ring_stride"));
  CHECK(ring.topology.boundary == Boundary::Ring);
  CHECK(ring.topology.stride > 1);
}

TEST_CASE("the pool's tensors are those of the golden model") {
  for (const std::string& name : kGolden) {
    const Pool pool = read_pool(golden_config(name));
    const SafetensorsFile file(golden(name) / "model/model-moue.safetensors");
    ModelSpec spec;
    spec.width = 24;
    const std::vector<PoolTensor> tensors = pool_tensors(pool, spec);
    CHECK(tensors.size() == file.tensors().size());
    for (const PoolTensor& tensor : tensors) {
      INFO(tensor.name);
      REQUIRE(file.find(tensor.name) != nullptr);
      CHECK(file.at(tensor.name).shape == tensor.shape);
      CHECK(is_pool_tensor(tensor.name));
    }
    spec.router.correction = true;
    CHECK(pool_tensors(pool, spec).size() == tensors.size() + pool.slots.size());
  }
  CHECK_FALSE(is_pool_tensor("model.norm.weight"));
}

TEST_CASE("a block goes into a config and comes out, byte for byte") {
  for (const std::string& name : kGolden) {
    const Config source = Config::read(golden(name) / "source/config.json");
    Pool pool = read_pool(golden_config(name));
    pool.calibrated = true;
    pool.foreign_input = ForeignInput::Layer;
    pool.state = PoolState::Relocked;
    pool.topology.name = "mine";
    const Config moue = with_pool(source, pool);
    CHECK(is_moue(moue));
    CHECK_FALSE(is_moue(source));
    CHECK(moue.string("model_type") == "moue");
    CHECK(moue.strings("architectures") == std::vector<std::string>{"MoUEForCausalLM"});
    CHECK(without_pool(moue).text() == source.text());
    const Pool again = read_pool(moue);
    CHECK(again.slots == pool.slots);
    CHECK(again.home == pool.home);
    CHECK(again.moe_layers == pool.moe_layers);
    CHECK(again.state == PoolState::Relocked);
    CHECK(again.foreign_input == ForeignInput::Layer);
    CHECK(again.topology.name == "mine");
    CHECK(again.calibrated);
    CHECK(with_pool(source, again).text() == moue.text());
    CHECK(with_pool(moue, again).text() == moue.text());
    pool.state = PoolState::Closed;
    CHECK(with_pool(source, pool).text() != moue.text());
  }
}

TEST_CASE("a source without model_type keeps that") {
  const Config source =
      Config::parse(R"({"architectures": ["MixtralForCausalLM"], "z": 1e-05})", "config.json");
  Pool pool = read_pool(golden_config("aligned"));
  pool.base_model_type = "";
  CHECK(without_pool(with_pool(source, pool)).text() == source.text());
}

TEST_CASE("every fault of a block is refused, all at once") {
  CHECK(refusal([](auto&) {}) == "");
  CHECK(contains(refusal([](auto& b) { b["version"] = 2; }),
                 "[pool] config.json: moue: version is 2, wanted 1"));
  CHECK(contains(refusal([](auto& b) { b["extra"] = 1; }),
                 "unknown keys: extra; keys of version 1: version, "));
  CHECK(contains(refusal([](auto& b) { b["mode"] = "expnd"; }),
                 "mode is 'expnd', wanted one of: reuse, expand"));
  CHECK(contains(refusal([](auto& b) { b["mode"] = "expand"; }),
                 "it has 30 homes, wanted more than 30 (6 layers of 5 experts) in mode expand"));
  CHECK(contains(refusal([](auto& b) { b["topology"]["ring"] = 3; }),
                 "topology.ring is 3, wanted the number of new experts, 0"));
  CHECK(contains(refusal([](auto& b) { b["state"] = "ajar"; }),
                 "'ajar', wanted one of: closed, opened, trained, relocked"));
  CHECK(contains(refusal([](auto& b) { b["foreign_input"] = "x"; }),
                 "foreign_input is 'x', wanted one of: home, layer"));
  CHECK(contains(refusal([](auto& b) { b["topology"]["boundary"] = "x"; }),
                 "boundary is 'x', wanted one of: ring, clamp"));
  CHECK(contains(refusal([](auto& b) { b["slots"][2].erase(0); }),
                 "layer 2 lists expert 11 in slot 0, wanted its own experts 10 to 14 first"));
  CHECK(contains(refusal([](auto& b) { std::swap(b["slots"][2][0], b["slots"][2][1]); }),
                 "layer 2 lists expert 11 in slot 0"));
  CHECK(contains(refusal([](auto& b) { b["slots"][1][6] = 0; }),
                 "layer 1 lists expert 0 twice, again in slot 6"));
  CHECK(contains(refusal([](auto& b) { b["slots"][1][6] = 30; }),
                 "layer 1 lists expert 30 in slot 6, wanted 0 to 29"));
  CHECK(contains(refusal([](auto& b) { b["slots"][1][6] = -1; }),
                 "layer 1 lists expert -1 in slot 6"));
  CHECK(contains(refusal([](auto& b) { b["slots"][1][6] = 5000000000; }),
                 "slots[1] is 5000000000, wanted a list of expert numbers"));
  CHECK(contains(refusal([](auto& b) { b["slots"][1][6] = 1.5; }), "slots[1] is 1.5"));
  CHECK(contains(refusal([](auto& b) { b["slots"][1] = "x"; }), "slots[1] is \"x\""));
  CHECK(contains(refusal([](auto& b) { b["slots"] = 3; }), "slots is 3, wanted a list of lists"));
  CHECK(contains(refusal([](auto& b) { b.erase("slots"); }), "no key 'slots'"));
  CHECK(
      contains(refusal([](auto& b) { b["slots"] = nlohmann::json::array(); }), "it has 0 layers"));
  CHECK(contains(refusal([](auto& b) {
                   b["slots"][4] = {20, 21};
                 }),
                 "layer 4 has 2 slots, wanted 5 to 4096"));
  CHECK(contains(refusal([](auto& b) {
                   b["home"][7] = {2, 2};
                 }),
                 "the home of expert 7 is [2, 2], wanted [1, 2]"));
  CHECK(contains(refusal([](auto& b) { b["home"][7] = {2}; }), "home[7] has 1 numbers"));
  CHECK(contains(refusal([](auto& b) { b["home"].erase(29); }), "it has 29 homes, wanted 30"));
  CHECK(
      contains(refusal([](auto& b) { b["num_moe_layers"] = 7; }), "num_moe_layers is 7, wanted 6"));
  CHECK(contains(refusal([](auto& b) { b["num_physical_experts"] = 31; }),
                 "num_physical_experts is 31, wanted 30"));
  CHECK(contains(refusal([](auto& b) { b["experts_per_layer"] = 0; }),
                 "it has 6 layers of 0 experts"));
  CHECK(contains(refusal([](auto& b) { b["moe_layers"].erase(0); }),
                 "moe_layers names 5 layers, wanted 6"));
  CHECK(contains(refusal([](auto& b) { b["moe_layers"][3] = 2; }),
                 "moe_layers[3] is 2, wanted layers in rising order"));
  CHECK(contains(refusal([](auto& b) { b["state_dim"] = 0; }), "state_dim is 0, wanted 1 to 256"));
  CHECK(contains(refusal([](auto& b) { b["state_dim"] = "7"; }), "state_dim"));
  CHECK(contains(refusal([](auto& b) { b = 3; }), "moue"));
  const std::string both = refusal([](auto& b) {
    b["slots"][1][6] = 30;
    b["slots"][3][9] = 15;
    b["state_dim"] = 999;
  });
  CHECK(contains(both, "layer 1 lists expert 30"));
  CHECK(contains(both, "layer 3 lists expert 15 twice"));
  CHECK(contains(both, "state_dim is 999"));
  CHECK(contains(
      message_of([] { read_pool(Config::read(golden("aligned") / "source/config.json")); }),
      "has no 'moue' block"));
}

TEST_CASE("too few slots for the experts of a token") {
  const Pool pool = read_pool(golden_config("aligned"));
  CHECK_NOTHROW(check_pool(pool, 10));
  CHECK(contains(message_of([&] { check_pool(pool, 11); }),
                 "layer 0 has 10 slots, wanted 11 to 4096"));
}

TEST_CASE("an ordinary model is a pool without sharing") {
  const Config config = Config::read("tests/golden/families/qwen3_moe/config.json");
  const Pool pool = vanilla_pool(config, family_of(config).spec(config));
  CHECK_NOTHROW(check_pool(pool, 3));
  CHECK(pool.moe_layers == std::vector<int64_t>{1, 3});
  CHECK(pool.num_physical() == 14);
  CHECK(pool.num_foreign(1) == 0);
  CHECK(pool.slots[1] == std::vector<int32_t>{7, 8, 9, 10, 11, 12, 13});
  CHECK(make_slots(pool.topology) == pool.slots);
  CHECK(open_visibility(pool) == closed_visibility(pool));
}

TEST_CASE("exposure and target share agree with the reference") {
  for (const std::string& name : kGolden) {
    const Pool pool = read_pool(golden_config(name));
    const SafetensorsFile expected(golden(name) / "expected.safetensors");
    const Visibility m = golden_visibility(name, pool);
    const std::vector<double> x = exposure(m, pool.slots, pool.num_physical());
    // Visibilities are stored in float32.
    CHECK(largest_difference(x, expected.values("open.exposure")) < tolerance::kGolden);
    CHECK(largest_difference(exposure(open_visibility(pool), pool.slots, 30),
                             expected.values("open.exposure")) > 100 * tolerance::kGolden);
    for (const char* kappa : {"0.0", "0.5", "1.0"}) {
      const std::vector<double> q = target_share(x, pool.slots, std::stod(kappa));
      const std::vector<double> wanted =
          expected.values(std::string("open.target_share.kappa_") + kappa);
      CHECK(largest_difference(q, wanted) < tolerance::kGolden);
      CHECK(largest_difference(target_share(x, pool.slots, std::stod(kappa) + 0.25), wanted) >
            10 * tolerance::kGolden);
      CHECK(sum(q) == Approx(1.0).epsilon(tolerance::kDoubleSum));
    }
  }
}

TEST_CASE("closed slots have no share") {
  const Pool pool = read_pool(golden_config("aligned"));
  Visibility m = open_visibility(pool);
  Slots slots = pool.slots;
  for (size_t layer : {0, 1}) {  // an expert that nobody sees
    const size_t slot = layer == 0 ? 2 : 7;
    REQUIRE(slots[layer][slot] == 2);
    m[layer][slot] = 0;
  }
  const std::vector<double> x = exposure(m, slots, 30);
  CHECK(x[2] == 0);
  for (double kappa : {0.0, 0.5, 1.0}) {
    const std::vector<double> q = target_share(x, slots, kappa);
    CHECK(q[2] == 0);
    CHECK(q[3] > 0);
    CHECK(sum(q) == Approx(1.0).epsilon(tolerance::kDoubleSum));
  }
}

TEST_CASE("exposures sum to the number of layers, and obey the law of the ring") {
  std::mt19937 draw(7);
  const auto from = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(draw);
  };
  int made = 0, lawful = 0, unequal = 0;
  for (int trial = 0; trial < 20000; ++trial) {
    Topology t{.name = "random", .layers = from(1, 12), .experts = from(1, 6)};
    t.group = from(1, 4);
    t.shift = from(-8, 24);
    t.window = from(t.experts, t.layers * t.experts);
    t.origin = from(-10, 10);
    t.boundary = trial % 4 == 0 ? Boundary::Clamp : Boundary::Ring;
    Slots slots;
    if (message_of([&] { slots = make_slots(t); }) != "") continue;
    ++made;
    const int64_t ring = t.layers * t.experts, d0 = std::gcd(t.shift, ring);
    Pool pool;
    pool.slots = slots;
    pool.experts_per_layer = t.experts;
    Visibility m = open_visibility(pool);
    for (auto& layer : m) {
      for (size_t slot = t.experts; slot < layer.size(); ++slot)
        layer[slot] = static_cast<double>(from(0, 4)) / 4;
    }
    CHECK(sum(exposure(m, slots, ring)) == Approx(t.layers).epsilon(tolerance::kDoubleSum));
    const std::vector<int64_t> c = sharing(slots, ring);
    const bool equal =
        std::all_of(c.begin(), c.end(), [&](int64_t n) { return n * ring == t.layers * t.window; });
    const bool law = t.boundary == Boundary::Ring && t.layers % t.group == 0 &&
                     (t.layers / t.group) % (ring / d0) == 0 && t.window % d0 == 0;
    if (law) CHECK(equal);
    lawful += law;
    unequal += !equal;
  }
  CHECK(made > 500);
  CHECK(lawful > 50);
  CHECK(unequal > 50);
}

TEST_CASE("components are named by their lowest layer") {
  CHECK(components({{0, 1}, {2, 3}, {1, 4}, {3, 5}}) == std::vector<int64_t>{0, 1, 0, 1});
  CHECK(components({{0}, {1}, {2, 0, 1}}) == std::vector<int64_t>{0, 0, 0});
  CHECK(components({{0}, {1}, {2}}) == std::vector<int64_t>{0, 1, 2});
  CHECK(components({{2}, {1}, {0, 1}, {0, 2}}) == std::vector<int64_t>{0, 0, 0, 0});
}

TEST_CASE("schedules agree with the reference") {
  for (const std::string& name : kGolden) {
    const Pool pool = read_pool(golden_config(name));
    const auto table = nlohmann::json::parse(test::file_text(golden(name) / "schedule.json"));
    const int64_t start = table["start"], end = table["end"];
    for (size_t i = 0; i < table["steps"].size(); ++i) {
      const int64_t step = table["steps"][i];
      for (const char* kind : {"distance", "logit", "psr"}) {
        const Visibility m = visibility_at(pool, schedule_of(kind), step, start, end, 5);
        for (size_t layer = 0; layer < m.size(); ++layer) {
          INFO(name << " " << kind << " step " << step << " layer " << layer);
          const std::vector<double> foreign(m[layer].begin() + pool.experts_per_layer,
                                            m[layer].end());
          CHECK(std::all_of(m[layer].begin(), m[layer].begin() + pool.experts_per_layer,
                            [](double v) { return v == 1; }));
          const auto& wanted = table["visibility"][kind][i][layer];
          if (wanted.is_array()) {
            CHECK(largest_difference(foreign, wanted.get<std::vector<double>>()) <
                  tolerance::kGolden);
          } else {
            CHECK(sum(foreign) == wanted.get<double>());
            CHECK(num_open(static_cast<int64_t>(foreign.size()), step, start, end) ==
                  wanted.get<int64_t>());
            CHECK(std::all_of(foreign.begin(), foreign.end(),
                              [](double v) { return v == 0 || v == 1; }));
          }
        }
      }
    }
  }
}

TEST_CASE("psr draws anew each step, layer and seed, and the same for the same") {
  const Pool pool = read_pool(golden_config("half_staggered"));
  const auto at = [&](int64_t step, uint64_t seed) {
    return visibility_at(pool, Schedule::Psr, step, 10, 50, seed);
  };
  CHECK(at(30, 5) == at(30, 5));
  CHECK(at(30, 5) != at(30, 6));
  CHECK(at(30, 5) != at(30, 5 + (uint64_t{1} << 32)));
  CHECK(num_open(15, 30, 10, 50) == num_open(15, 31, 10, 50));
  CHECK(at(30, 5) != at(31, 5));
  CHECK(at(30, 5)[0] != at(30, 5)[1]);
  // Each slot is open about equally often: 7 of 15 over 4000 draws, five standard deviations.
  std::vector<double> often(15);
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    const Visibility m = at(30, seed);
    for (size_t slot = 0; slot < 15; ++slot) often[slot] += m[2][5 + slot] / 4000;
  }
  for (double share : often) CHECK(share == Approx(7.0 / 15).margin(5 * std::sqrt(0.25 / 4000)));
}

TEST_CASE("psr opens the smallest draws of (step, layer, slot) under the seed") {
  const Pool pool = read_pool(golden_config("half_staggered"));
  const uint64_t seed = 0x123456789abcdef0;
  const Visibility m = visibility_at(pool, Schedule::Psr, 31, 10, 50, seed);
  for (uint32_t layer = 0; layer < 6; ++layer) {
    std::vector<std::pair<uint32_t, size_t>> draws;
    for (uint32_t slot = 5; slot < 20; ++slot)
      draws.emplace_back(philox(seed, {31, layer, slot, 0})[0], slot);
    std::sort(draws.begin(), draws.end());
    for (size_t i = 0; i < draws.size(); ++i) CHECK(m[layer][draws[i].second] == (i < 7 ? 1 : 0));
  }
}

TEST_CASE("schedules that open at once, or not yet") {
  const Pool pool = read_pool(golden_config("half_staggered"));
  for (Schedule kind : {Schedule::Distance, Schedule::Psr, Schedule::Logit}) {
    CHECK(visibility_at(pool, kind, 9, 10, 10, 0) == closed_visibility(pool));
    CHECK(visibility_at(pool, kind, 10, 10, 10, 0) == open_visibility(pool));
    CHECK(visibility_at(pool, kind, 10, 10, 50, 0) == closed_visibility(pool));
    CHECK(visibility_at(pool, kind, 50, 10, 50, 0) == open_visibility(pool));
    CHECK(visibility_at(pool, kind, 30, 10, 50, 0) != closed_visibility(pool));
  }
  CHECK(contains(message_of([] { schedule_of("step"); }),
                 "open.schedule is 'step', wanted one of: distance, psr, logit"));
  CHECK(to_string(Schedule::Psr) == "psr");
}

namespace {

// Seven copies shared by the golden source's layers.
Pool expanded() {
  const Checkpoint source = open_checkpoint(golden("aligned") / "source");
  PlanOptions options{.mode = "expand", .experts = 7, .topology = "sliding"};
  return make_plan(source, family_of(source.config()), nullptr, options).pool;
}

template <class Edit>
std::string expand_refusal(Edit&& edit) {
  const Config source = Config::read(golden("aligned") / "source/config.json");
  nlohmann::ordered_json json = with_pool(source, expanded()).json();
  edit(json["moue"]);
  return message_of([&] { read_pool(Config(json, "config.json")); });
}

}  // namespace

TEST_CASE("a pool with new experts goes into a config and comes out") {
  const Config source = Config::read(golden("aligned") / "source/config.json");
  const Pool pool = expanded();
  CHECK(pool.num_source() == 30);
  CHECK(pool.num_new() == 7);
  CHECK(pool.is_own(2, 13));
  CHECK_FALSE(pool.is_own(2, 15));
  CHECK_FALSE(pool.is_own(6, 30));  // new experts are nobody's own
  const Config config = with_pool(source, pool);
  const Pool again = read_pool(config);
  CHECK(again.mode == Mode::Expand);
  CHECK(again.home == pool.home);
  CHECK(again.slots == pool.slots);
  CHECK(again.topology.ring == 7);
  CHECK(with_pool(source, again).text() == config.text());
  CHECK(without_pool(config).text() == source.text());
  for (const auto& slots : pool.slots) CHECK(slots[5] >= 30);
}

TEST_CASE("every fault of an expanded block is refused") {
  CHECK(expand_refusal([](auto&) {}) == "");
  CHECK(contains(expand_refusal([](auto& b) { b["mode"] = "reuse"; }),
                 "it has 37 homes, wanted 30 (6 layers of 5 experts)"));
  CHECK(contains(expand_refusal([](auto& b) {
                   b["home"][33] = {6, 0};
                 }),
                 "the donor of new expert 33 is [6, 0], wanted one of 6 layers of 5 experts"));
  CHECK(contains(expand_refusal([](auto& b) {
                   b["home"][36] = {0, -1};
                 }),
                 "the donor of new expert 36 is [0, -1]"));
  CHECK(contains(expand_refusal([](auto& b) {
                   b["home"][3] = {0, 2};
                 }),
                 "the home of expert 3 is [0, 2], wanted [0, 3]"));
  CHECK(contains(expand_refusal([](auto& b) { b["slots"][1][6] = 0; }),
                 "layer 1 lists expert 0 in slot 6, wanted new experts alone, 30 to 36, in mode "
                 "expand"));
  CHECK(contains(expand_refusal([](auto& b) { b["slots"][1][6] = 37; }),
                 "layer 1 lists expert 37 in slot 6, wanted 0 to 36"));
  CHECK(contains(expand_refusal([](auto& b) { b["slots"][1][6] = b["slots"][1][5]; }),
                 "twice, again in slot 6"));
  CHECK(contains(expand_refusal([](auto& b) { b["topology"]["ring"] = 8; }),
                 "topology.ring is 8, wanted the number of new experts, 7"));
  CHECK(contains(expand_refusal([](auto& b) { b["num_physical_experts"] = 30; }),
                 "num_physical_experts is 30, wanted 37"));
}

TEST_CASE("the tensors of a new expert") {
  ModelSpec spec;
  spec.width = 24;
  spec.expert_width = 40;
  std::vector<ExpertTensor> tensors = expert_tensors(11, spec);
  REQUIRE(tensors.size() == 3);
  CHECK(tensors[0].name == "moue.experts.11.gate.weight");
  CHECK(tensors[0].shape == std::vector<int64_t>{40, 24});
  CHECK(tensors[2].name == "moue.experts.11.down.weight");
  CHECK(tensors[2].shape == std::vector<int64_t>{24, 40});
  spec.expert_bias = true;
  tensors = expert_tensors(0, spec);
  REQUIRE(tensors.size() == 6);
  CHECK(tensors[4].name == "moue.experts.0.up.bias");
  CHECK(tensors[5].shape == std::vector<int64_t>{24});
  for (const ExpertTensor& tensor : tensors) {
    CHECK(is_pool_tensor(tensor.name));
    CHECK(is_expert_tensor(tensor.name));
  }
  CHECK_FALSE(is_expert_tensor(names::kKey));
}
