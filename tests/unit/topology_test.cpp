// Topologies: the named ones, slot lists, refusals, path bits.
#include "moue/plan.h"

#include "support/headers_only.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

using namespace moue;
using moue::test::contains;
using moue::test::message_of;

namespace {

Topology custom(int64_t layers, int64_t experts, int64_t window, int64_t origin = 0) {
  return {.name = "custom",
          .layers = layers,
          .experts = experts,
          .group = 1,
          .shift = experts,
          .window = window,
          .origin = origin};
}

std::string refusal(const Topology& topology) {
  return message_of([&] { make_slots(topology); });
}

size_t num_components(const Slots& slots) {
  const std::vector<int64_t> c = components(slots);
  return std::set<int64_t>(c.begin(), c.end()).size();
}

}  // namespace

TEST_CASE("the named topologies have the numbers of the method's table") {
  struct Case {
    std::string name;
    int64_t group, slots, least, most;
    size_t components;
    double bits;
  };
  const std::vector<Case> cases = {
      {"vanilla", 0, 8, 1, 1, 32, 153.8},        {"aligned", 0, 16, 2, 2, 16, 221.0},
      {"aligned", 4, 32, 4, 4, 8, 286.5},        {"sliding", 0, 24, 2, 4, 1, 259.5},
      {"half_staggered", 0, 32, 2, 6, 1, 286.5}, {"one_pool", 0, 256, 32, 32, 1, 479.8},
  };
  for (const Case& c : cases) {
    INFO(c.name << " group " << c.group);
    const Slots slots = make_slots(named_topology(c.name, 32, 8, c.group));
    REQUIRE(slots.size() == 32);
    for (const auto& layer : slots) CHECK(static_cast<int64_t>(layer.size()) == c.slots);
    const std::vector<int64_t> shared = sharing(slots, 256);
    CHECK(*std::min_element(shared.begin(), shared.end()) == c.least);
    CHECK(*std::max_element(shared.begin(), shared.end()) == c.most);
    CHECK(num_components(slots) == c.components);
    CHECK(path_bits(slots, 2) == Approx(c.bits).margin(0.05));
  }
  CHECK(topology_names().size() == 6);
}

TEST_CASE("with a ring, sliding and half_staggered share evenly") {
  for (const auto& [name, wanted] : {std::pair{"sliding", 3}, {"half_staggered", 4}}) {
    Topology t = named_topology(name, 32, 8, 0);
    t.boundary = Boundary::Ring;
    const std::vector<int64_t> shared = sharing(make_slots(t), 256);
    CHECK(std::all_of(shared.begin(), shared.end(), [w = wanted](int64_t c) { return c == w; }));
  }
}

TEST_CASE("slots: own experts first, the rest in window order") {
  const Slots slots = make_slots({.name = "custom",
                                  .layers = 4,
                                  .experts = 2,
                                  .group = 1,
                                  .shift = 2,
                                  .window = 5,
                                  .origin = -2,
                                  .boundary = Boundary::Ring});
  CHECK(slots[0] == std::vector<int32_t>{0, 1, 6, 7, 2});
  CHECK(slots[1] == std::vector<int32_t>{2, 3, 0, 1, 4});
  CHECK(slots[3] == std::vector<int32_t>{6, 7, 4, 5, 0});
  const Slots clamped = make_slots(custom(4, 2, 5, -2));
  CHECK(clamped[0] == std::vector<int32_t>{0, 1, 2, 3, 4});
  CHECK(clamped[3] == std::vector<int32_t>{6, 7, 3, 4, 5});
}

TEST_CASE("every named topology is sound for awkward sizes") {
  for (const std::string& name : topology_names()) {
    if (name == "similarity") continue;  // its slots come from scores
    for (int64_t layers : {1, 2, 3, 5, 7, 12}) {
      for (int64_t experts : {1, 3, 5, 8}) {
        for (int64_t group : {0, 1, 2, 3, 5}) {
          if (name == "vanilla" && group > 1) continue;
          const Topology t = named_topology(name, layers, experts, group);
          INFO(name << " L " << layers << " N " << experts << " g " << group);
          const Slots slots = make_slots(t);
          for (int64_t layer = 0; layer < layers; ++layer) {
            CHECK(static_cast<int64_t>(slots[layer].size()) == t.window);
            for (int64_t e = 0; e < experts; ++e) CHECK(slots[layer][e] == layer * experts + e);
            CHECK(std::set<int32_t>(slots[layer].begin(), slots[layer].end()).size() ==
                  slots[layer].size());
          }
        }
      }
    }
  }
}

TEST_CASE("refusals name layers and numbers, all at once") {
  CHECK(contains(message_of([] { named_topology("slidng", 4, 2, 0); }),
                 "topology is 'slidng', wanted one of: vanilla, aligned, sliding, half_staggered, "
                 "one_pool, similarity; did you mean sliding?"));
  CHECK(contains(refusal(named_topology("similarity", 4, 2, 0)),
                 "topology similarity has no slots of its own"));
  const std::string missed = refusal(custom(6, 4, 4, -4));
  CHECK(contains(missed,
                 "[plan] topology custom (group 1, shift 4, window 4, stride 1, origin -4, clamp): "
                 "layer 1 (window 0 to 3) misses its own experts 4 to 7, layer 2 (window 4 to 7) "
                 "misses its own "
                 "experts 8 to 11, "));
  CHECK(contains(missed, "layer 5 (window 16 to 19) misses its own experts 20 to 23"));
  CHECK_FALSE(contains(missed, "layer 0"));
  CHECK(contains(refusal(custom(6, 4, 3)),
                 "layer 0 (window 0 to 2) misses its own 1 of 4 experts, first 3"));
  Topology strided = custom(4, 4, 9);
  strided.stride = 2;
  CHECK(contains(refusal(strided),
                 "a window of 9 with stride 2 shows an expert twice on a ring of 16, wanted a "
                 "window of at most 8; "
                 "stride is 2, wanted 1 with boundary clamp"));
  strided.boundary = Boundary::Ring;
  strided.window = 8;
  CHECK(contains(refusal(strided), "misses its own 2 of 4 experts"));
  CHECK(contains(refusal(custom(4, 4, 17)),
                 "a window of 17 with stride 1 shows an expert twice on a ring of 16"));
  CHECK(contains(refusal(custom(100, 64, 4097)),
                 "more slots than the kernels hold, wanted at most 4096"));
  CHECK(contains(refusal(custom(65536, 65536, 4096)),
                 "layers times experts is 4294967296, wanted 1 to 16777216"));
  CHECK(refusal(custom(100, 64, 4096)) == "");
  CHECK(contains(refusal(custom(4, 4, 0)), "window is 0, wanted 1 to"));
  Topology far = custom(4, 4, 4, int64_t{1} << 40);
  far.group = 0;
  far.shift = -(int64_t{1} << 50);
  const std::string message = refusal(far);
  CHECK(contains(message, "group is 0"));
  CHECK(contains(message, "shift is -1125899906842624"));
  CHECK(contains(message, "origin is 1099511627776"));
}
