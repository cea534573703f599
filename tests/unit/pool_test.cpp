// Pools: the block on disk and its refusals; against tests/golden/moue.
#include "moue/pool.h"

#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/plan.h"
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
