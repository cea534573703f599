// statistics.safetensors: written, read back exactly, refused where anything is off.
#include "moue/statistics.h"

#include "moue/safetensors.h"
#include "support/headers_only.h"
#include "support/scratch.h"

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>

using namespace moue;
using moue::test::contains;
using moue::test::message_of;

namespace {

Statistics sample() {
  Statistics s;
  s.fingerprint = std::string(64, 'a');
  s.tokens_name = "held_out.u16";
  s.tokens = 4096;
  s.loss = 3.0 / 7;
  s.load = {{0.5, 0.25, 0.25}, {0, 1.0 / 3, 2.0 / 3}};
  s.margin = {0.1, 0.2};
  s.entropy = {1.0, 0.5};
  s.output_rms = {2, 1.0 / 9};
  return s;
}

Statistics calibrated() {
  Statistics s = sample();
  s.eps = 0.02;
  s.slots = {{0, 1, 2, 4}, {3, 4, 5}};
  s.beta = {{-1.0 / 3}, {}};
  s.scale = {{1.5}, {}};
  return s;
}

Statistics corrected() {
  Statistics s = calibrated();
  s.correction = {{0.125}, {}};
  return s;
}

void check_equal(const Statistics& a, const Statistics& b) {
  CHECK(a.fingerprint == b.fingerprint);
  CHECK(a.tokens_name == b.tokens_name);
  CHECK(a.tokens == b.tokens);
  CHECK(a.loss == b.loss);
  CHECK(a.load == b.load);
  CHECK(a.margin == b.margin);
  CHECK(a.entropy == b.entropy);
  CHECK(a.output_rms == b.output_rms);
  CHECK(a.similarity.kind == b.similarity.kind);
  CHECK(a.similarity.inputs == b.similarity.inputs);
  CHECK(a.similarity.samples == b.similarity.samples);
  CHECK(a.similarity.reach == b.similarity.reach);
  CHECK(a.similarity.score == b.similarity.score);
  REQUIRE(a.replacements.size() == b.replacements.size());
  for (size_t i = 0; i < a.replacements.size(); ++i) {
    const Replacement &x = a.replacements[i], &y = b.replacements[i];
    CHECK(std::tie(x.replaced.layer, x.replaced.expert, x.best.layer, x.best.expert, x.random.layer,
                   x.random.expert, x.best_score, x.random_score, x.best_loss, x.random_loss) ==
          std::tie(y.replaced.layer, y.replaced.expert, y.best.layer, y.best.expert, y.random.layer,
                   y.random.expert, y.best_score, y.random_score, y.best_loss, y.random_loss));
  }
  CHECK(a.slots == b.slots);
  CHECK(a.donors == b.donors);
  CHECK(a.eps == b.eps);
  CHECK(a.beta == b.beta);
  CHECK(a.scale == b.scale);
  CHECK(a.correction == b.correction);
}

// A hand-made file in which one tensor or word differs from what `sample` gives.
struct Made {
  std::string name;
  Dtype dtype = Dtype::F64;
  std::vector<int64_t> shape = {};
  std::vector<double> values = {};
};

std::string refusal(const std::vector<Made>& changes,
                    std::map<std::string, std::string> words = {}) {
  std::vector<Made> tensors = {{"loss", Dtype::F64, {1}, {1}},
                               {"load", Dtype::F64, {2, 2}, {0.5, 0.5, 0.25, 0.75}},
                               {"margin", Dtype::F64, {2}, {1, 1}},
                               {"entropy", Dtype::F64, {2}, {1, 1}},
                               {"output_rms", Dtype::F64, {2}, {1, 1}}};
  for (const Made& change : changes) {
    std::erase_if(tensors, [&](const Made& made) { return made.name == change.name; });
    if (!change.shape.empty()) tensors.push_back(change);
  }
  std::map<std::string, std::string> metadata = {{"format", "moue-statistics-1"},
                                                 {"fingerprint", "f"},
                                                 {"tokens_name", "t"},
                                                 {"tokens", "12"}};
  for (const auto& [key, value] : words) {
    metadata[key] = value;
    if (value.empty()) metadata.erase(key);
  }
  std::vector<TensorView> views;
  for (const Made& made : tensors) {
    const int64_t count =
        std::accumulate(made.shape.begin(), made.shape.end(), int64_t{1}, std::multiplies<>());
    views.push_back(
        {made.name, made.dtype, made.shape,
         std::as_bytes(std::span(made.values)).subspan(0, count * dtype_bits(made.dtype) / 8)});
  }
  const test::Scratch scratch;
  write_safetensors(scratch / "s.safetensors", views, metadata);
  return message_of([&] { read_statistics(scratch / "s.safetensors"); });
}

}  // namespace

TEST_CASE("statistics come back as they were") {
  const test::Scratch scratch;
  for (const Statistics& s : {sample(), corrected(), calibrated()}) {
    write_statistics(s, scratch / "statistics.safetensors");
    check_equal(read_statistics(scratch / "statistics.safetensors"), s);
  }
  CHECK(std::distance(std::filesystem::directory_iterator(scratch.path()), {}) == 1);
  const std::string first = test::file_text(scratch / "statistics.safetensors");
  write_statistics(calibrated(), scratch / "again.safetensors");
  CHECK(test::file_text(scratch / "again.safetensors") == first);
}

TEST_CASE("statistics are read strictly") {
  CHECK(refusal({}) == "");
  CHECK(contains(refusal({{"margin"}}), "no tensor 'margin'"));
  CHECK(contains(refusal({{"more", Dtype::F64, {1}, {1}}}), "6 tensors, wanted 5"));
  CHECK(contains(refusal({{"entropy", Dtype::F64, {3}, {1, 1, 1}}}),
                 "entropy is F64 [3], wanted F64 [2]"));
  CHECK(contains(refusal({{"entropy", Dtype::F32, {2}, {1, 1}}}),
                 "entropy is F32 [2], wanted F64 [2]"));
  CHECK(contains(refusal({{"load", Dtype::F64, {2, 2}, {0.5, 0.4, 0.25, 0.75}}}),
                 "load of layer 0 has a sum of 0.9"));
  CHECK(contains(refusal({{"load", Dtype::F64, {2, 2}, {1.5, -0.5, 0.25, 0.75}}}),
                 "a least share of -0.5"));
  CHECK(contains(refusal({{"loss", Dtype::F64, {1}, {std::numeric_limits<double>::quiet_NaN()}}}),
                 "loss holds nan, wanted finite numbers"));
  CHECK(contains(refusal({}, {{"format", "pt"}}), "format is 'pt', wanted 'moue-statistics-1'"));
  CHECK(contains(refusal({}, {{"format", ""}}), "is it a file of moue measure?"));
  CHECK(contains(refusal({}, {{"tokens", "12x"}}), "metadata tokens is '12x', wanted a count"));
  CHECK(contains(refusal({}, {{"tokens", "-1"}}), "metadata tokens is '-1', wanted a count"));
  CHECK(contains(refusal({}, {{"fingerprint", ""}}), "metadata has no 'fingerprint'"));
  const std::string uncalibrated = refusal({{"eps", Dtype::F64, {1}, {0.1}}});
  CHECK(contains(uncalibrated, "no tensor 'layers.0.slots'"));
  CHECK(contains(uncalibrated, "no tensor 'layers.1.scale'"));
  const std::string both = refusal({{"margin"}, {"loss"}});
  CHECK(contains(both, "no tensor 'loss'"));
  CHECK(contains(both, "no tensor 'margin'"));
}

TEST_CASE("the report of statistics") {
  const Report plain = report_of(sample());
  CHECK(plain.verb == "measure");
  REQUIRE(plain.tables.size() == 1);
  CHECK(plain.tables[0].rows.size() == 2);
  CHECK(std::get<int64_t>(plain.tables[0].rows[1][4]) == 1);           // one dead expert
  CHECK(std::get<double>(plain.tables[0].rows[1][3]) == Approx(1.0));  // 2/3 against 1/3
  CHECK(plain.pictures.size() == 1);
  const Report full = report_of(calibrated());
  REQUIRE(full.tables.size() == 2);
  CHECK(full.tables[1].rows.size() == 1);  // the second layer has no foreign slots
  CHECK(std::get<double>(full.tables[1].rows[0][2]) == -1.0 / 3);
  const Table c = report_of(corrected()).tables.at(1);
  CHECK(c.columns[2] == "least c");
  CHECK(std::get<double>(c.rows.at(0)[2]) == 0.125);
}

namespace {

// Two layers of three experts, each compared with the other's.
Statistics compared() {
  Statistics s = sample();
  const double no = Similarity::kUnknown;
  s.similarity = {
      "output", "tokens", 100, 1, {{no, no, no, 0.5, 1.0 / 3, 0}, {0.25, 1, 0.75, no, no, no}}};
  s.replacements = {{{0, 1}, {1, 0}, {1, 2}, 0.5, 0.1, 3.0, 3.25},
                    {{1, 2}, {0, 0}, {0, 1}, 0.25, 0.125, 4.5, 4.0}};
  return s;
}

}  // namespace

TEST_CASE("similarity, replacements and donors come back as they were") {
  const test::Scratch scratch;
  const auto back = [&](const Statistics& s) {
    write_statistics(s, scratch / "s");
    return read_statistics(scratch / "s");
  };
  check_equal(back(compared()), compared());
  Statistics expanded = calibrated();
  expanded.donors = {{1, 2}, {0, 1}, {1, 0}};
  check_equal(back(expanded), expanded);
  check_equal(back(calibrated()), calibrated());
}

TEST_CASE("scores that are none are refused") {
  const test::Scratch scratch;
  const auto refused = [&](auto&& edit) {
    Statistics s = compared();
    edit(s.similarity.score);
    write_statistics(s, scratch / "s");
    return message_of([&] { read_statistics(scratch / "s"); });
  };
  CHECK(refused([](auto&) {}) == "");
  CHECK(contains(refused([](auto& score) { score[0][4] = 1.5; }),
                 "similarity.score holds 1.5, wanted 0 to 1, or -1"));
  CHECK(contains(refused([](auto& score) { score[1][0] = -0.5; }), "similarity.score holds -0.5"));
  CHECK(contains(refused([](auto& score) {
                   for (auto& row : score) row.pop_back();
                 }),
                 "similarity.score is F64 [2, 5], wanted F64 [2, 6]"));
}

TEST_CASE("the report counts replacements by their losses") {
  const Report report = report_of(compared());
  const auto fact = [&](const std::string& key) {
    return value_text(std::ranges::find(report.facts, key, &Fact::key)->value);
  };
  CHECK(fact("replacements") == "2");
  CHECK(fact("best_donor_wins") == "1");
  CHECK(std::stod(fact("best_donor_increase")) == Approx((3.0 + 4.5) / 2 - 3.0 / 7).epsilon(1e-4));
  CHECK(std::stod(fact("random_donor_increase")) == Approx((3.25 + 4) / 2 - 3.0 / 7).epsilon(1e-4));
  CHECK(std::stod(fact("similarity_mean")) == Approx((5.0 / 6 / 3 + 2.0 / 3) / 2).epsilon(1e-4));
}
