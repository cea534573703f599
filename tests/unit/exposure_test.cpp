// Exposure, target share, components and schedules of a pool, against tests/golden/moue.
#include "moue/pool.h"

#include "core/philox.h"
#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/plan.h"
#include "pool/schedule.h"
#include "support/messages.h"
#include "support/scratch.h"
#include "support/tolerances.h"

#include <algorithm>
#include <bit>
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
      for (const std::string kind : {"distance", "logit", "psr", "step"}) {
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
            const auto count = kind == "psr" ? num_open : num_open_by_thirds;
            CHECK(count(static_cast<int64_t>(foreign.size()), step, start, end) ==
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

TEST_CASE("step opens a third of the slots, two thirds, then all") {
  for (const int64_t foreign : {0, 1, 5, 24, 100}) {
    CHECK(num_open_by_thirds(foreign, 9, 10, 50) == 0);
    CHECK(num_open_by_thirds(foreign, 10, 10, 50) == foreign / 3);
    CHECK(num_open_by_thirds(foreign, 29, 10, 50) == foreign / 3);
    CHECK(num_open_by_thirds(foreign, 30, 10, 50) == 2 * foreign / 3);
    CHECK(num_open_by_thirds(foreign, 49, 10, 50) == 2 * foreign / 3);
    CHECK(num_open_by_thirds(foreign, 50, 10, 50) == foreign);
  }
}

TEST_CASE("psr on an aligned topology opens the number of slots of ReXMoE at every step") {
  const Pool pool = read_pool(golden_config("aligned"));
  for (int64_t step = 0; step < 60; ++step) {
    const Visibility m = visibility_at(pool, Schedule::Psr, step, 10, 50, 3);
    for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
      // N_t = N + floor((t - t_s) (R - 1) N / (t_e - t_s)), of R layers with N experts each.
      const auto all = static_cast<int64_t>(pool.slots[layer].size());
      const int64_t N = pool.experts_per_layer, t = std::clamp<int64_t>(step, 10, 50);
      CHECK(sum(m[layer]) == static_cast<double>(N + (t - 10) * (all - N) / 40));
    }
  }
}

namespace {

// The smallest set of foreign slots whose choices, with the home slots', reach `cover`, by trying
// all sets.
int64_t fewest(const std::vector<double>& f, int64_t home, double cover) {
  const int64_t foreign = static_cast<int64_t>(f.size()) - home;
  int64_t best = foreign;
  for (int64_t set = 0; set < (int64_t{1} << foreign); ++set) {
    double held = std::accumulate(f.begin(), f.begin() + home, 0.0);
    for (int64_t i = 0; i < foreign; ++i) held += (set >> i & 1) ? f[home + i] : 0.0;
    if (held >= cover - 1e-12) best = std::min<int64_t>(best, std::popcount(uint64_t(set)));
  }
  return best;
}

}  // namespace

TEST_CASE("relocking covers a layer's choices with the fewest slots, by brute force") {
  const Pool pool = read_pool(golden_config("half_staggered"));
  const int64_t N = pool.experts_per_layer;
  int64_t closed = 0, tried = 0;
  for (uint32_t trial = 0; trial < 20; ++trial) {
    std::vector<std::vector<double>> f;
    for (size_t layer = 0; layer < pool.slots.size(); ++layer) {
      std::vector<double>& row = f.emplace_back();
      for (uint32_t slot = 0; slot < pool.slots[layer].size(); ++slot) {
        const double u =
            philox(trial, {slot, static_cast<uint32_t>(layer), 0, 0})[0] / 4294967296.0;
        row.push_back(u * u * u);
      }
      const double total = sum(row);
      for (double& share : row) share /= total;
    }
    for (const double cover : {0.5, 0.95, 0.99}) {
      const Visibility kept = kept_slots(pool, f, cover);
      for (size_t layer = 0; layer < kept.size(); ++layer) {
        double held = 0;
        for (size_t slot = 0; slot < kept[layer].size(); ++slot)
          held += kept[layer][slot] * f[layer][slot];
        CHECK(held >= cover);
        const auto foreign = static_cast<int64_t>(sum(kept[layer])) - N;
        CHECK(std::all_of(kept[layer].begin(), kept[layer].begin() + N,
                          [](double m) { return m == 1; }));
        CHECK(foreign == fewest(f[layer], N, cover));
        closed += static_cast<int64_t>(kept[layer].size()) - N - foreign;
        ++tried;
      }
    }
  }
  CHECK(closed > tried);  // there was something to close
}

TEST_CASE("what relocking does not keep fades and closes") {
  const Visibility kept = {{1, 1, 1, 0}, {1, 1, 0, 0}};
  CHECK(relocked(kept, 0) == Visibility{{1, 1, 1, 1}, {1, 1, 1, 1}});
  CHECK(relocked(kept, 0.5)[1][3] == Approx(0.5));
  CHECK(relocked(kept, 0.25)[0][3] == Approx(0.8535533906));
  CHECK(relocked(kept, 1) == kept);
}

TEST_CASE("schedules that open at once, or not yet") {
  const Pool pool = read_pool(golden_config("half_staggered"));
  for (Schedule kind : {Schedule::Distance, Schedule::Psr, Schedule::Step, Schedule::Logit}) {
    CHECK(visibility_at(pool, kind, 9, 10, 10, 0) == closed_visibility(pool));
    CHECK(visibility_at(pool, kind, 10, 10, 10, 0) == open_visibility(pool));
    // step: a third at once.
    const bool closed = visibility_at(pool, kind, 10, 10, 50, 0) == closed_visibility(pool);
    CHECK(closed == (kind != Schedule::Step));
    CHECK(visibility_at(pool, kind, 50, 10, 50, 0) == open_visibility(pool));
    CHECK(visibility_at(pool, kind, 30, 10, 50, 0) != closed_visibility(pool));
  }
  CHECK(contains(message_of([] { schedule_of("steps"); }),
                 "open.schedule is 'steps', wanted one of: distance, psr, step, logit"));
  CHECK(to_string(Schedule::Psr) == "psr");
}
