// similarity: CKA on Gaussian inputs against a plain computation, the choice of donors,
// comparisons.
#include "plan/similarity.h"

#include "core/normal.h"
#include "support/headers_only.h"
#include "support/loose_model.h"
#include "support/scratch.h"
#include "support/tolerances.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

const fs::path kTiny = "examples/tiny-mixtral";
const fs::path kPico = "tests/golden/families/qwen3_moe";

using Rows = std::vector<std::vector<double>>;

struct Source {
  Checkpoint checkpoint;
  const Family& family;
  Claims claims;
  ModelSpec spec;
  explicit Source(const fs::path& directory)
      : checkpoint(open_checkpoint(directory)),
        family(family_of(checkpoint.config())),
        claims(claim(checkpoint, family)),
        spec(family.spec(checkpoint.config())) {}

  Similarity scores(int64_t reach, int64_t samples = 64) const {
    return gaussian_similarity(checkpoint, claims, spec, reach, samples);
  }
  Rows matrix(Role role, int64_t layer, int64_t expert = -1) const {
    const Slice slice = claims.slice(role, layer, expert).value();
    std::vector<float> values(slice.rows * slice.columns);
    read_slice(checkpoint, slice, values);
    Rows rows;
    for (int64_t row = 0; row < slice.rows; ++row) {
      const auto first = values.begin() + row * slice.columns;
      rows.emplace_back(first, first + slice.columns);
    }
    return rows;
  }
};

std::vector<double> times(const Rows& matrix, const std::vector<double>& x) {
  std::vector<double> y;
  for (const auto& row : matrix)
    y.push_back(std::inner_product(row.begin(), row.end(), x.begin(), 0.0));
  return y;
}

// Outputs of an expert, centred, in double and by the formula.
Rows outputs(const Source& source, int64_t layer, int64_t expert, int64_t samples) {
  std::vector<float> inputs(samples * source.spec.width);
  fill_normal(inputs, 0, "moue.similarity", 1);
  const Rows gain = source.matrix(Role::MlpNorm, layer);
  const Rows gate = source.matrix(Role::ExpertGate, layer, expert),
             up = source.matrix(Role::ExpertUp, layer, expert),
             down = source.matrix(Role::ExpertDown, layer, expert);
  Rows y;
  for (int64_t s = 0; s < samples; ++s) {
    std::vector<double> x(source.spec.width);
    for (size_t d = 0; d < x.size(); ++d) x[d] = inputs[s * x.size() + d] * gain[d][0];
    std::vector<double> g = times(gate, x);
    const std::vector<double> u = times(up, x);
    for (size_t f = 0; f < g.size(); ++f) g[f] = g[f] / (1 + std::exp(-g[f])) * u[f];
    y.push_back(times(down, g));
  }
  for (size_t d = 0; d < y[0].size(); ++d) {
    double mean = 0;
    for (const auto& row : y) mean += row[d] / static_cast<double>(samples);
    for (auto& row : y) row[d] -= mean;
  }
  return y;
}

// |A^T B|_F^2, column by column.
double cross(const Rows& a, const Rows& b) {
  double sum = 0;
  for (size_t i = 0; i < a[0].size(); ++i) {
    for (size_t j = 0; j < b[0].size(); ++j) {
      double product = 0;
      for (size_t s = 0; s < a.size(); ++s) product += a[s][i] * b[s][j];
      sum += product * product;
    }
  }
  return sum;
}

double cka(const Rows& a, const Rows& b) {
  return cross(a, b) / std::sqrt(cross(a, a) * cross(b, b));
}

Similarity hand_made(int64_t layers, int64_t experts, int64_t reach) {
  Similarity similarity{"cka", "tokens", 10, reach, {}};
  similarity.score.assign(layers, std::vector<double>(layers * experts, Similarity::kUnknown));
  for (int64_t layer = 0; layer < layers; ++layer) {
    for (int64_t p = 0; p < layers * experts; ++p) {
      const int64_t distance = std::abs(p / experts - layer);
      if (distance > 0 && distance <= reach) similarity.score[layer][p] = 0.5;
    }
  }
  return similarity;
}

Topology topology(int64_t layers, int64_t experts, int64_t window, int64_t reach) {
  Topology t = named_topology("similarity", layers, experts, 0);
  t.window = window;
  t.reach = reach;
  return t;
}

}  // namespace

TEST_CASE("scores are the best linear CKA, computed plainly") {
  const Source source(kPico);  // MoE layers 1 and 3 of 7 experts
  const int64_t samples = 19;
  const Similarity seen = source.scores(1, samples);
  CHECK(seen.inputs == "gaussian");
  std::vector<Rows> first, second;
  for (int64_t e = 0; e < 7; ++e) {
    first.push_back(outputs(source, 1, e, samples));
    second.push_back(outputs(source, 3, e, samples));
  }
  for (int64_t e = 0; e < 7; ++e) {
    double best = 0, back = 0, worst = 1;
    for (int64_t i = 0; i < 7; ++i) {
      best = std::max(best, cka(first[i], second[e]));
      worst = std::min(worst, cka(first[i], second[e]));
      back = std::max(back, cka(second[i], first[e]));
    }
    CHECK(std::abs(seen.score[0][7 + e] - best) < tolerance::kCka);
    CHECK(std::abs(seen.score[1][e] - back) < tolerance::kCka);
    CHECK(std::abs(seen.score[0][7 + e] - worst) > 100 * tolerance::kCka);  // control
    CHECK(seen.score[0][e] == Similarity::kUnknown);                        // its own
    CHECK(seen.score[1][7 + e] == Similarity::kUnknown);
  }
}

TEST_CASE("scores end at the reach, and more reach changes none") {
  const Source source(kTiny);
  const Similarity near = source.scores(1, 16), far = source.scores(7, 16);
  for (int64_t layer = 0; layer < 8; ++layer) {
    for (int64_t p = 0; p < 64; ++p) {
      const int64_t distance = std::abs(p / 8 - layer);
      CHECK((near.score[layer][p] == Similarity::kUnknown) == (distance == 0 || distance > 1));
      CHECK((far.score[layer][p] == Similarity::kUnknown) == (distance == 0));
      if (distance == 1) CHECK(near.score[layer][p] == far.score[layer][p]);
    }
  }
}

TEST_CASE("a copy of an own expert is the best donor there is, equal donors go by number") {
  const Scratch scratch;
  LooseModel model(kTiny);
  const auto copy = [&](int64_t from_layer, int64_t from, int64_t layer, int64_t to) {
    for (const Role role : {Role::ExpertGate, Role::ExpertUp, Role::ExpertDown})
      model.at(role, layer, to).bytes = model.at(role, from_layer, from).bytes;
  };
  copy(3, 2, 5, 7);
  copy(3, 2, 5, 1);
  model.at(Role::MlpNorm, 5).bytes = model.at(Role::MlpNorm, 3).bytes;  // behind equal norms
  model.write(scratch / "twins");
  const Source source(scratch / "twins");
  const Similarity scores = source.scores(2, 32);
  CHECK(scores.score[3][47] == Approx(1).margin(tolerance::kCka));
  CHECK(scores.score[3][41] == scores.score[3][47]);
  CHECK(scores.score[3][42] < 0.9);
  const Slots slots = slots_by_score(topology(8, 8, 12, 2), scores);
  CHECK(slots[3][8] == 41);
  CHECK(slots[3][9] == 47);
}

TEST_CASE("a dead expert is like none, a damaged one is refused") {
  const Scratch scratch;
  LooseModel model(kPico);
  std::ranges::fill(model.at(Role::ExpertDown, 1, 2).bytes, std::byte{0});
  model.write(scratch / "dead");
  CHECK(Source(scratch / "dead").scores(1, 16).score[1][2] == 0);
  const float nan = std::nanf("");
  std::memcpy(model.at(Role::ExpertDown, 3, 4).bytes.data(), &nan, sizeof(nan));
  model.write(scratch / "damaged");
  CHECK(contains(message_of([&] { Source(scratch / "damaged").scores(1, 16); }),
                 "[plan] expert 4 of layer 3 gives numbers that are not finite"));
}

TEST_CASE("slots by score: best first, ties by lower number, within reach") {
  Similarity scores = hand_made(4, 3, 2);
  scores.score[1][8] = 0.9;
  scores.score[1][2] = 0.7;
  scores.score[1][11] = 0.7;
  const Slots slots = slots_by_score(topology(4, 3, 8, 2), scores);
  CHECK(slots[1] == std::vector<int32_t>{3, 4, 5, 8, 2, 11, 0, 1});
  CHECK(slots[0] == std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7});
  // A shorter reach than was measured.
  CHECK(slots_by_score(topology(4, 3, 6, 1), scores)[1] == std::vector<int32_t>{3, 4, 5, 8, 2, 0});
  CHECK(contains(message_of([&] { slots_by_score(topology(4, 3, 10, 2), scores); }),
                 "[plan] topology similarity (window 10, reach 2): layer 0 has 6, layer 3 has 6, "
                 "wanted 7 donors within reach; narrow the window or lengthen the reach"));
  const PlanScores summary = scores_of(slots, scores);
  REQUIRE(summary.layers.size() == 4);
  CHECK(summary.layers[1].best == 0.9);
  CHECK(summary.layers[1].worst == 0.5);
  CHECK(summary.layers[1].mean == Approx((0.9 + 0.7 + 0.7 + 0.5 + 0.5) / 5));
}

TEST_CASE("a plan by similarity: with or without statistics, read back, refused where changed") {
  const Scratch scratch;
  const Source source(kTiny);
  PlanOptions options{.topology = "similarity"};
  options.samples = 32;
  const Plan plan = make_plan(source.checkpoint, source.family, nullptr, options);
  CHECK(plan.pool.topology.name == "similarity");
  CHECK(plan.pool.topology.reach == 2);
  for (const auto& slots : plan.pool.slots) CHECK(slots.size() == 16);
  REQUIRE(plan.scores);
  CHECK(plan.scores->inputs == "gaussian");
  CHECK(plan.scores->samples == 32);
  write_plan(plan, scratch / "plan.json");
  const Plan again = read_plan(scratch / "plan.json");
  CHECK(again.pool.slots == plan.pool.slots);
  REQUIRE(again.scores);
  CHECK(again.scores->layers[3].mean == plan.scores->layers[3].mean);
  auto json = nlohmann::ordered_json::parse(file_text(scratch / "plan.json"));
  json["moue"]["slots"][0].back() = 60;
  write_text(scratch / "far.json", json.dump());
  CHECK(contains(message_of([&] { read_plan(scratch / "far.json"); }),
                 "layer 0 lists expert 60 of layer 7"));

  Statistics statistics;
  statistics.fingerprint = plan.fingerprint;
  statistics.load.assign(8, std::vector<double>(8, 0.125));
  statistics.similarity = hand_made(8, 8, 2);
  statistics.similarity.score[4][20] = 0.75;
  const auto with = [&] {
    return make_plan(source.checkpoint, source.family, &statistics, options);
  };
  CHECK(with().pool.slots[4][8] == 20);
  CHECK(with().scores->inputs == "tokens");
  options.scores = "none";
  CHECK(with().pool.slots == plan.pool.slots);
  options.scores = "data";
  options.reach = 3;
  CHECK(contains(message_of(with),
                 "the statistics' scores reach 2 MoE layers, wanted 3; measure with --reach 3"));
  statistics.similarity.score.clear();
  CHECK(contains(message_of(with), "scores of data are wanted, the statistics have none"));
  const auto refused = [&](const PlanOptions& with) {
    return message_of([&] { make_plan(source.checkpoint, source.family, nullptr, with); });
  };
  CHECK(contains(refused(options), "scores of data are wanted, no statistics are given"));
  PlanOptions shifted{.topology = "similarity", .boundary = "ring"};
  shifted.shift = 3;
  CHECK(contains(refused(shifted),
                 "shift has no meaning, scores choose the donors; boundary has no "
                 "meaning"));
  PlanOptions narrow{.topology = "similarity"};
  narrow.window = 7;
  CHECK(contains(refused(narrow), "window is 7, wanted at least a layer's own 8 experts"));
  narrow.window = 8;
  CHECK(make_plan(source.checkpoint, source.family, nullptr, narrow).pool.slots[3].size() == 8);
}

TEST_CASE("topologies side by side") {
  const Source source(kTiny);
  const auto compared = [&](const PlanOptions& options, const std::vector<std::string>& names) {
    return compare_plans(source.checkpoint, source.family, nullptr, options, names);
  };
  const auto cell = [](const Report& report, size_t row, const std::string& column) {
    const Table& table = report.tables.at(0);
    const auto at = std::ranges::find(table.columns, column) - table.columns.begin();
    return table.rows.at(row).at(at);
  };
  const auto real = [&](const Report& report, size_t row, const std::string& column) {
    return std::get<double>(cell(report, row, column));
  };
  const auto warns = [](const Report& report, const std::string& part) {
    return std::ranges::any_of(report.warnings,
                               [&](const std::string& warning) { return contains(warning, part); });
  };
  const Report all = compared({}, {});
  CHECK(all.tables[0].rows.size() == 5);
  CHECK(warns(all, "similarity is left out: its scores read every expert"));
  CHECK(value_text(cell(all, 0, "likeness")) == "-");

  PlanOptions options;
  options.samples = 16;
  const Report some = compared(options, {"half_staggered", "similarity", "one_pool"});
  REQUIRE(some.tables[0].rows.size() == 3);
  CHECK(std::get<int64_t>(cell(some, 0, "slots min")) == 32);
  CHECK(real(some, 0, "path bits") == Approx(8 * std::log2(32 * 31 / 2.0)));
  // Home rows in bfloat16; 24 foreign ones of 128, beta, a and m in float32.
  CHECK(std::get<int64_t>(cell(some, 0, "router bytes")) == 8 * (8 * 128 * 2 + 24 * 131 * 4));
  CHECK(real(some, 1, "likeness") > real(some, 0, "likeness"));
  CHECK(real(some, 1, "likeness") > real(some, 2, "likeness"));
  CHECK(warns(some, "one_pool: routers take 3.3 % of a token's active parameters, more than 2 %"));
  CHECK_FALSE(warns(some, "half_staggered: routers"));
  CHECK(warns(some, "one_pool: 240 of 448 foreign slots are beyond the reach of 2"));

  PlanOptions expand{.mode = "expand", .experts = 16};
  const Report expanded = compared(expand, {"vanilla", "similarity"});
  REQUIRE(expanded.tables[0].rows.size() == 1);
  CHECK(warns(expanded, "similarity is left out: [plan] topology similarity: mode is expand"));
  CHECK(contains(message_of([&] {
                   compared({}, {"aligned", "x", "y"});
                 }),
                 "[plan] compare names 'x', 'y', wanted some of: vanilla, aligned"));
  PlanOptions capped{.max_sharing = 1};
  CHECK(contains(message_of([&] { compared(capped, {"sliding"}); }),
                 "none of the topologies can be made: sliding is left out"));
}

TEST_CASE("a plan warns where its routers cost much") {
  const Source source(kTiny);
  const auto warnings = [&](const std::string& name) {
    const Plan plan = make_plan(source.checkpoint, source.family, nullptr, {.topology = name});
    return report_of(plan, source.checkpoint).warnings;
  };
  CHECK(warnings("half_staggered").empty());
  REQUIRE(warnings("one_pool").size() == 1);
  CHECK(contains(warnings("one_pool")[0], "routers take 3.3 %"));
}
