// What changes with the step: learning rate, balance coefficient, stages, visibility.
#include "support/torch_test.h"

#include <cmath>
#include <numbers>

#include "moue/config.h"
#include "train/schedule.h"

namespace moue {
namespace {

Pool pico_pool() {
  return read_pool(Config::read("tests/golden/moue/half_staggered/model/config.json"));
}

TrainOptions options_of(int64_t steps) {
  TrainOptions options;
  options.steps = steps;
  options.lr = 0.4;
  options.warmup = 4;
  options.alpha = 0.02;
  options.alpha_warmup = 2;
  options.open = {"distance", 0.1, 0.5};
  options.seed = 3;
  return options;
}

double largest_foreign(const Visibility& visibility, int64_t experts) {
  double largest = 0;
  for (const auto& row : visibility)
    largest = std::max(largest, *std::max_element(row.begin() + experts, row.end()));
  return largest;
}

}  // namespace

TEST_CASE("learning rate: warm-up, cosine to the floor", "[schedule]") {
  const TrainSchedule schedule(options_of(100), pico_pool(), true);
  CHECK(schedule.lr(0) == Approx(0.1));
  CHECK(schedule.lr(1) == Approx(0.2));
  CHECK(schedule.lr(3) == Approx(0.4));
  CHECK(schedule.lr(4) == Approx(0.4));
  const double third = 0.5 * (1 + std::cos(std::numbers::pi * 32.0 / 95.0));
  CHECK(schedule.lr(36) == Approx(0.4 * (0.1 + 0.9 * third)));
  CHECK(schedule.lr(99) == Approx(0.04));
}

TEST_CASE("learning rate: constant, and no warm-up", "[schedule]") {
  TrainOptions options = options_of(100);
  options.schedule = "constant";
  options.warmup = 0;
  const TrainSchedule schedule(options, pico_pool(), true);
  CHECK(schedule.lr(0) == 0.4);
  CHECK(schedule.lr(99) == 0.4);
}

// Written out by hand: 20 steps, 4 of warm-up to 0.4, floor 0.04, the last quarter a cooldown.
TEST_CASE("learning rate: every shape against a table", "[schedule]") {
  struct Row {
    std::string schedule, decay;
    std::vector<std::pair<int64_t, double>> rates;
  };
  const std::vector<std::pair<int64_t, double>> warmup = {{0, 0.1}, {1, 0.2}, {2, 0.3}, {3, 0.4}};
  const Row row = GENERATE(
      Row{"constant", "linear", {{4, 0.4}, {12, 0.4}, {19, 0.4}}},
      Row{"linear", "linear", {{4, 0.4}, {9, 0.28}, {14, 0.16}, {19, 0.04}}},
      Row{"cosine", "linear", {{4, 0.4}, {9, 0.31}, {14, 0.13}, {19, 0.04}}},
      Row{"wsd",
          "linear",
          {{4, 0.4}, {14, 0.4}, {15, 0.328}, {16, 0.256}, {17, 0.184}, {18, 0.112}, {19, 0.04}}},
      Row{"wsd",
          "1-sqrt",
          {{14, 0.4},
           {15, 0.2390031},
           {16, 0.1723160},
           {17, 0.1211452},
           {18, 0.0780062},
           {19, 0.04}}});
  CAPTURE(row.schedule, row.decay);
  TrainOptions options = options_of(20);
  options.schedule = row.schedule;
  options.decay = row.decay;
  options.cooldown = 0.25;
  const TrainSchedule schedule(options, pico_pool(), true);
  for (const auto& rates : {warmup, row.rates}) {
    for (const auto& [step, rate] : rates) {
      CAPTURE(step);
      CHECK(schedule.lr(step) == Approx(rate).epsilon(1e-6));
    }
  }
}

TEST_CASE("learning rate: it rises again where slots begin to open", "[schedule]") {
  TrainOptions options = options_of(20);
  options.schedule = "constant";
  options.open = {"distance", 0.5, 0.8};
  options.rewarm = 3;
  TrainOptions control = options;
  control.control = true;
  for (const TrainSchedule& schedule :
       {TrainSchedule(options, pico_pool(), true), TrainSchedule(control, pico_pool(), false)}) {
    CHECK(schedule.lr(9) == 0.4);
    CHECK(schedule.lr(10) == Approx(0.4 / 3));
    CHECK(schedule.lr(11) == Approx(0.8 / 3));
    CHECK(schedule.lr(12) == 0.4);
  }
  CHECK(TrainSchedule(options, pico_pool(), false).lr(10) == 0.4);  // nothing opens here
}

TEST_CASE("unset warm-ups are two per cent of the steps", "[schedule]") {
  TrainOptions options = options_of(500);
  options.warmup.reset();
  options.alpha_warmup.reset();
  const TrainSchedule schedule(options, pico_pool(), true);
  CHECK(schedule.lr(0) == Approx(0.04));
  CHECK(schedule.lr(9) == Approx(0.4));
  CHECK(schedule.alpha(0) == Approx(0.002));
  CHECK(schedule.alpha(9) == 0.02);
}

TEST_CASE("alpha warms up and stays", "[schedule]") {
  const TrainSchedule schedule(options_of(100), pico_pool(), true);
  CHECK(schedule.alpha(0) == Approx(0.01));
  CHECK(schedule.alpha(1) == 0.02);
  CHECK(schedule.alpha(99) == 0.02);
}

TEST_CASE("stages change at their steps", "[schedule]") {
  const TrainSchedule schedule(options_of(100), pico_pool(), true);
  CHECK(schedule.stage(0) == Stage::Warmup);
  CHECK(schedule.stage(9) == Stage::Warmup);
  CHECK(schedule.stage(10) == Stage::Open);
  CHECK(schedule.stage(49) == Stage::Open);
  CHECK(schedule.stage(50) == Stage::Full);
  const TrainSchedule ordinary(options_of(100), pico_pool(), false);
  CHECK(ordinary.stage(0) == Stage::Full);
}

TEST_CASE("slots open between the stages, whatever the schedule", "[schedule]") {
  const std::string kind = GENERATE("distance", "psr", "logit");
  CAPTURE(kind);
  TrainOptions options = options_of(100);
  options.open.schedule = kind;
  const Pool pool = pico_pool();
  const TrainSchedule schedule(options, pool, true);
  CHECK(schedule.visibility(0) == closed_visibility(pool));
  CHECK(schedule.visibility(9) == closed_visibility(pool));
  CHECK(largest_foreign(schedule.visibility(30), pool.experts_per_layer) > 0);
  CHECK(schedule.visibility(30) != open_visibility(pool));
  CHECK(schedule.visibility(30) == schedule.visibility(30));
  CHECK(schedule.visibility(50) == open_visibility(pool));
  options.seed = 4;
  const bool drawn = TrainSchedule(options, pool, true).visibility(30) != schedule.visibility(30);
  CHECK(drawn == (kind == "psr"));
}

TEST_CASE("the pool bias stands still before slots open and at the end", "[schedule]") {
  const TrainSchedule schedule(options_of(100), pico_pool(), true);
  CHECK_FALSE(schedule.bias_moves(9));
  CHECK(schedule.bias_moves(10));
  CHECK(schedule.bias_moves(94));
  CHECK_FALSE(schedule.bias_moves(95));
}

}  // namespace moue
