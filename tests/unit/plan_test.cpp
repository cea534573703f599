// Plans of checkpoints: what options change, notes, refusals, plan.json, report and picture.
#include "moue/plan.h"

#include "support/headers_only.h"
#include "support/scratch.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

using namespace moue;
using moue::test::contains;
using moue::test::message_of;

namespace {

const std::filesystem::path kTiny = "examples/tiny-mixtral";

Plan plan_of(const PlanOptions& options, const std::filesystem::path& model = kTiny) {
  const Checkpoint source = open_checkpoint(model);
  return make_plan(source, family_of(source.config()), nullptr, options);
}

std::string plan_refusal(const PlanOptions& options, const std::filesystem::path& model = kTiny) {
  return message_of([&] { plan_of(options, model); });
}

std::string notes_of(const PlanOptions& options) {
  std::string all;
  for (const std::string& note : plan_of(options).notes) all += note + "\n";
  return all;
}

template <class T>
T fact(const Report& report, const std::string& key) {
  for (const Fact& fact : report.facts) {
    if (fact.key == key) return std::get<T>(fact.value);
  }
  throw std::logic_error("no fact " + key);
}

}  // namespace

TEST_CASE("a plan of a real checkpoint") {
  const Plan plan = plan_of({});
  CHECK(plan.pool.topology.name == "half_staggered");
  CHECK(plan.pool.num_moe_layers() == 8);
  CHECK(plan.pool.experts_per_layer == 8);
  CHECK(plan.pool.slots == make_slots(named_topology("half_staggered", 8, 8, 0)));
  CHECK(plan.pool.base_architectures == std::vector<std::string>{"MixtralForCausalLM"});
  CHECK(plan.pool.state == PoolState::Closed);
  CHECK(plan.pool.state_dim == 32);
  CHECK(plan.notes.empty());
  CHECK(plan.fingerprint.size() == 64);
}

TEST_CASE("dense layers have no place in the ring") {
  const Plan plan = plan_of({.topology = "one_pool"}, "tests/golden/families/qwen3_moe");
  CHECK(plan.pool.moe_layers == std::vector<int64_t>{1, 3});
  CHECK(plan.pool.slots.size() == 2);
  CHECK(plan.pool.slots[1].size() == 14);
}

TEST_CASE("set parameters override the named topology") {
  PlanOptions options{.topology = "aligned"};
  options.group = 4;
  CHECK(plan_of(options).pool.topology.name == "aligned");
  CHECK(plan_of(options).pool.topology.window == 32);
  options.window = 40;
  CHECK(plan_of(options).pool.topology.name == "custom");
  CHECK(plan_of(options).pool.slots[0].size() == 40);
  options.window = 32;  // what it was anyway
  CHECK(plan_of(options).pool.topology.name == "aligned");
  const Plan ring = plan_of({.topology = "sliding", .boundary = "ring", .foreign_input = "layer"});
  CHECK(ring.pool.topology.boundary == Boundary::Ring);
  CHECK(ring.pool.slots[0][8] == 56);
  CHECK(ring.pool.foreign_input == ForeignInput::Layer);
}

TEST_CASE("notes say what a reader would not expect") {
  CHECK(notes_of({}) == "");
  PlanOptions wide{.topology = "half_staggered"};
  wide.group = 5;
  CHECK(notes_of(wide) ==
        "the window of 80 is limited to the ring's 64\n"
        "8 layers are no multiple of the group of 5: the last block overlaps the one before\n");
  PlanOptions thirds{.topology = "aligned", .boundary = "ring"};
  thirds.group = 3;
  CHECK(notes_of(thirds) ==
        "8 layers are no multiple of the group of 3: the last block wraps round the ring\n");
}

TEST_CASE("a plan refuses what it cannot mean") {
  CHECK(contains(plan_refusal({.topology = "x"}), "[plan] topology is 'x', wanted one of: "));
  CHECK(contains(plan_refusal({.boundary = "cyclic"}),
                 "boundary is 'cyclic', wanted one of: ring, clamp"));
  CHECK(contains(plan_refusal({.max_sharing = -1, .state_dim = 0}),
                 "state_dim is 0, wanted 1 to 256; max_sharing is -1, wanted 0 or more"));
  CHECK(contains(plan_refusal({.foreign_input = "x"}), "foreign_input is 'x'"));
  CHECK(contains(plan_refusal({.max_sharing = 5}),
                 "16 of 64 experts are listed by more layers than max_sharing 5: expert 24 (layer "
                 "3, expert 0) is listed by 6"));
  CHECK(plan_refusal({.max_sharing = 6}) == "");
  PlanOptions options;
  options.group = 0;
  CHECK(contains(plan_refusal(options), "group is 0, wanted 1 to 64"));
  options = {};
  options.window = 65;
  CHECK(contains(plan_refusal(options), "a window of 65"));
  CHECK(contains(plan_refusal({}, "tests/golden/moue/aligned/model"),
                 "is a MoUE already, wanted a source model"));
}

TEST_CASE("a shift without a group says the group") {
  const std::string source = "tests/golden/moue/aligned/source";
  // Three shares of five experts; half_staggered alone would take groups of two.
  CHECK(plan_of({}, source).pool.topology.group == 2);
  CHECK(plan_of({.shift = 5, .window = 9, .origin = -2}, source).pool.topology.group == 1);
  CHECK(plan_of({.shift = 10, .window = 20}, source).pool.topology.group == 2);
  CHECK(plan_of({.group = 2, .shift = 5, .window = 30}, source).pool.topology.group == 2);
  CHECK(plan_of({.shift = 3, .window = 30}, source).pool.topology.group == 2);
}

TEST_CASE("the fingerprint tells sources apart") {
  const Checkpoint source = open_checkpoint("tests/golden/moue/aligned/source");
  const Family& family = family_of(source.config());
  const std::string seen = fingerprint(source, family);
  CHECK(seen == fingerprint(open_checkpoint("tests/golden/moue/aligned/source"), family));
  CHECK(seen == plan_of({}, "tests/golden/moue/aligned/source").fingerprint);
  CHECK(seen != fingerprint(open_checkpoint("tests/golden/families/mixtral"), family));

  // One byte of a router, of the config, or of a name.
  const test::Scratch scratch;
  const auto changed = [&](const std::string& name, auto&& edit) {
    const std::filesystem::path copy = scratch / name;
    std::filesystem::copy("tests/golden/moue/aligned/source", copy);
    edit(copy);
    return fingerprint(open_checkpoint(copy), family);
  };
  CHECK(changed("same", [](const auto&) {}) == seen);
  CHECK(changed("router", [](const std::filesystem::path& copy) {
          const Checkpoint c = open_checkpoint(copy);
          const TensorInfo& router = c.at("model.layers.5.block_sparse_moe.gate.weight");
          const std::filesystem::path file = copy / c.file_names()[router.file];
          std::string bytes = test::file_text(file);
          bytes[router.offset + 3] ^= 1;
          test::write_text(file, bytes);
        }) != seen);
  CHECK(changed("config", [](const std::filesystem::path& copy) {
          std::string text = test::file_text(copy / "config.json");
          text.replace(text.find("0.001"), 5, "0.002");
          test::write_text(copy / "config.json", text);
        }) != seen);
}

TEST_CASE("plan.json is read back as it was, and written the same each time") {
  const test::Scratch scratch;
  PlanOptions options{.topology = "half_staggered", .boundary = "ring"};
  options.group = 5;
  const Plan plan = plan_of(options);
  write_plan(plan, scratch / "plan.json");
  const std::string text = test::file_text(scratch / "plan.json");
  const Plan again = read_plan(scratch / "plan.json");
  CHECK(again.fingerprint == plan.fingerprint);
  CHECK(again.notes == plan.notes);
  CHECK(again.pool.slots == plan.pool.slots);
  CHECK(again.pool.home == plan.pool.home);
  CHECK(again.pool.topology.origin == plan.pool.topology.origin);
  write_plan(again, scratch / "plan.json");
  CHECK(test::file_text(scratch / "plan.json") == text);
  CHECK(test::file_text(scratch / "plan.svg") == picture_of(plan));
  CHECK(std::distance(std::filesystem::directory_iterator(scratch.path()), {}) == 2);
  CHECK(contains(text, "\n      [8,9,10,11,12,13,14,15,"));  // a slot list is a line
}

TEST_CASE("plan.json is read strictly") {
  const test::Scratch scratch;
  write_plan(plan_of({.topology = "aligned"}, "tests/golden/moue/aligned/source"),
             scratch / "plan.json");
  const auto good = nlohmann::ordered_json::parse(test::file_text(scratch / "plan.json"));
  const auto refused = [&](auto&& edit) {
    auto json = good;
    edit(json);
    test::write_text(scratch / "bad.json", json.dump());
    return message_of([&] { read_plan(scratch / "bad.json"); });
  };
  CHECK(refused([](auto&) {}) == "");
  CHECK(contains(refused([](auto& j) { j["version"] = 2; }), "version is 2, wanted 1"));
  CHECK(contains(refused([](auto& j) { j["more"] = 2; }),
                 "unknown key 'more'; keys of a plan: version, fingerprint, notes, moue, scores"));
  CHECK(contains(refused([](auto& j) { j.erase("notes"); }), "no key 'notes'"));
  CHECK(contains(refused([](auto& j) { j["fingerprint"] = "abc"; }),
                 "fingerprint is 'abc', wanted 64 hexadecimal digits"));
  CHECK(contains(refused([](auto& j) { j["notes"] = 3; }), "notes is 3"));
  CHECK(contains(refused([](auto& j) { j["moue"] = 3; }), "moue"));
  CHECK(contains(refused([](auto& j) { j["moue"]["state"] = "trained"; }),
                 "state is trained, wanted closed"));
  CHECK(contains(refused([](auto& j) { j["moue"]["calibrated"] = true; }),
                 "state is closed, calibrated, wanted closed"));
  CHECK(contains(refused([](auto& j) { j["moue"]["slots"][3][7] = 3; }),
                 "bad.json: the slots of 1 layer (3) are not those of its topology"));
  CHECK(
      contains(refused([](auto& j) { j["moue"]["slots"][3][7] = 99; }), "layer 3 lists expert 99"));
  CHECK(refused([](auto& j) {
          j["moue"]["slots"][3][7] = 3;
          j["moue"]["topology"]["name"] = "by_hand";
        }) == "");
  test::write_text(scratch / "bad.json", "{\"version\": 1, \"version\": 1}");
  CHECK(contains(message_of([&] { read_plan(scratch / "bad.json"); }), "[plan]"));
  CHECK(contains(message_of([&] { read_plan(scratch / "none.json"); }), "none.json"));
}

TEST_CASE("statistics of another source are refused, its own are noted") {
  const Checkpoint source = open_checkpoint(kTiny);
  const Family& family = family_of(source.config());
  Statistics statistics;
  statistics.fingerprint = std::string(64, '0');
  const auto with = [&] { return make_plan(source, family, &statistics, {}); };
  CHECK(contains(message_of([&] { with(); }),
                 "the statistics are of another source (fingerprint 0000"));
  statistics.fingerprint = fingerprint(source, family);
  REQUIRE(with().notes.size() == 1);
  CHECK(contains(with().notes[0], "the statistics do not change this topology"));
}

TEST_CASE("the report of a plan") {
  const Checkpoint source = open_checkpoint(kTiny);
  const Plan plan = plan_of({});
  const Report report = report_of(plan, source);
  CHECK(fact<std::string>(report, "topology") == "half_staggered");
  CHECK(fact<int64_t>(report, "slots_min") == 32);
  CHECK(fact<int64_t>(report, "slots_max") == 32);
  CHECK(fact<int64_t>(report, "sharing_min") == 2);
  CHECK(fact<int64_t>(report, "sharing_max") == 6);
  CHECK(fact<double>(report, "sharing_mean") == Approx(4));
  CHECK(fact<int64_t>(report, "components") == 1);
  CHECK(fact<double>(report, "path_bits") == Approx(8 * std::log2(32 * 31 / 2.0)));
  CHECK(fact<double>(report, "path_bits_source") == Approx(8 * std::log2(28.0)));
  // 24 foreign rows of 128, beta, a and m; gamma; key, query; decay; bias.
  CHECK(fact<int64_t>(report, "new_bytes") ==
        4 * (8 * (24 * 128 + 3 * 24 + 32) + 2 * 64 * 32 + 32 + 64));
  CHECK(fact<double>(report, "router_share") > 8.0 * 32 * 128 / 2e6);
  REQUIRE(report.tables.size() == 1);
  CHECK(report.tables[0].rows.size() == 8);
  CHECK(report.pictures.size() == 1);
  CHECK(contains(to_html(report), "</svg>"));
}

TEST_CASE("the picture tells own from foreign experts without colour") {
  const auto count = [](const std::string& text, const std::string& part) {
    size_t n = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
    return n;
  };
  const std::string aligned = picture_of(plan_of({.topology = "aligned"}));
  CHECK(count(aligned, "<title>layer 2: own experts 16 to 23</title>") == 1);
  CHECK(count(aligned, "<title>layer 2: foreign experts 24 to 31</title>") == 1);
  CHECK(count(aligned, ": own experts") == 8);
  CHECK(count(aligned, ": foreign experts") == 8);
  const std::string vanilla = picture_of(plan_of({.topology = "vanilla"}));
  CHECK(count(vanilla, ": own experts") == 8);
  CHECK(count(vanilla, ": foreign experts") == 0);

  // A huge pool is drawn by home layers, in bounded size.
  Plan huge;
  Topology t{.name = "strided",
             .layers = 400,
             .experts = 64,
             .shift = 64,
             .window = 4000,
             .stride = 3,
             .boundary = Boundary::Ring};
  huge.pool.topology = t;
  huge.pool.experts_per_layer = 64;
  for (int32_t l = 0; l < 400; ++l) {
    for (int32_t e = 0; e < 64; ++e) huge.pool.home.push_back({l, e});
    std::vector<int32_t> slots(64);
    std::iota(slots.begin(), slots.end(), 64 * l);
    for (int32_t j = 0; j < 1000; ++j) slots.push_back((64 * (l + 1) + 3 * j) % 25600);
    huge.pool.slots.push_back(slots);
  }
  const std::string picture = picture_of(huge);
  CHECK(count(picture, "every 3th layer is drawn") == 1);
  CHECK(count(picture, "sees 22 of 64 experts of layer") +
            count(picture, "sees 21 of 64 experts of layer") >
        1000);
  CHECK(picture.size() < 3'000'000);
}
