// Stages of an upgrade: what moves in each, what is shown before slots open, how they close again.
#include "support/torch_test.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "moue/checkpoint.h"
#include "moue/convert.h"
#include "moue/model.h"
#include "moue/plan.h"
#include "moue/pool.h"
#include "support/torch_pico.h"
#include "train/loop.h"
#include "train/trainer.h"

namespace moue {
namespace {

using namespace test;
using Json = nlohmann::ordered_json;

std::vector<Json> journal(const fs::path& out) {
  std::vector<Json> lines;
  for (const std::string& line : journal_lines(out)) lines.push_back(Json::parse(line));
  return lines;
}

// The largest visibility that is neither 0 nor 1.
double largest_fraction(const Visibility& visibility) {
  double largest = 0;
  for (const auto& row : visibility) {
    for (const double m : row) largest = m < 1 ? std::max(largest, m) : largest;
  }
  return largest;
}

}  // namespace

TEST_CASE("the warm-up leaves all but the trajectory as it was", "[train]") {
  PicoRun run;
  run.options.stop_after = 4;  // t_s
  train_model(run.model, run.out("run"), run.options);
  const Checkpoint step = open_checkpoint(run.out("run") / "step-000004");
  const Checkpoint source = open_checkpoint(run.model);
  CHECK(read_pool(step.config()).state == PoolState::Opened);
  int64_t moved = 0;
  for (const TensorInfo& tensor : source.tensors()) {
    CAPTURE(tensor.name);
    const bool same = step.read(step.at(tensor.name)) == source.read(tensor);
    const bool calibrated = tensor.name.ends_with("router.bias") || tensor.name.ends_with("scale");
    if (!same && !calibrated) CHECK_THAT(tensor.name, Catch::Contains("trajectory"));
    moved += !same && !calibrated;
  }
  CHECK(moved > 5);
}

TEST_CASE("trajectory = off moves all but the trajectory", "[train]") {
  PicoRun run;
  run.options.trajectory = "off";
  const Report report = train_model(run.model, run.out("run"), run.options);
  REQUIRE(report.warnings.size() == 1);
  CHECK_THAT(report.warnings[0], Catch::Contains("nothing moved before step 4"));
  const Checkpoint step = open_checkpoint(run.out("run") / "step-000020");
  const Checkpoint source = open_checkpoint(run.model);
  for (const TensorInfo& tensor : source.tensors()) {
    CAPTURE(tensor.name);
    const bool same = step.read(step.at(tensor.name)) == source.read(tensor);
    CHECK(same == (tensor.bytes == 0 || tensor.name.find("trajectory") != std::string::npos));
  }
}

TEST_CASE("what opening would do is shown before it is done", "[train]") {
  PicoRun run;
  run.options.calibrate.eps = 0.2;
  train_model(run.model, run.out("run"), run.options);
  const Json effect = journal(run.out("run"))[0], held_out = journal(run.out("run"))[1];
  REQUIRE(effect["changed_by_opening"].size() == 6);
  for (const double share : effect["changed_by_opening"]) CHECK(share < 0.6);
  CHECK(effect["loss_closed"].get<double>() == Approx(held_out["held_out"].get<double>()));
  CHECK(effect["loss_open"] != effect["loss_closed"]);

  // Uncalibrated slots change far more choices.
  run.options.calibrate.tokens = 0;
  train_model(run.model, run.out("bare"), run.options);
  const auto sum = [](const Json& line) {
    double total = 0;
    for (const double share : line["changed_by_opening"]) total += share;
    return total;
  };
  CHECK(sum(journal(run.out("bare"))[0]) > 1.5 * sum(effect));
}

TEST_CASE("on the tokens of the calibration opening changes at most eps", "[train]") {
  PicoRun run;
  // Foreign rows that are copies of the home rows, as a conversion leaves them.
  const Checkpoint source = open_checkpoint("tests/golden/moue/half_staggered/source");
  const Plan plan = make_plan(source, family_of(source.config()), nullptr, {});
  run.model = run.scratch / "converted";
  convert(source, plan, nullptr, run.model, {});
  run.options.held_out.clear();
  run.options.calibrate.tokens = 1200;
  run.options.calibrate.eps = GENERATE(0.05, 0.3);
  run.options.steps = 1;
  train_model(run.model, run.out("run"), run.options);
  const Json effect = journal(run.out("run"))[0];
  // The token that a quantile is taken from stands on the border; rounding decides its side.
  const double border = 2.0 / 1200;
  double most = 0;
  for (const double share : effect["changed_by_opening"]) {
    CHECK(share <= run.options.calibrate.eps + border);
    most = std::max(most, share);
  }
  CHECK(most > run.options.calibrate.eps / 3);
}

TEST_CASE("relocking closes slots for good and says so", "[train]") {
  PicoRun run;
  run.options.open = {"distance", 0, 0.3};
  run.options.relock = {0.4, 0.8, 0.7};
  train_model(run.model, run.out("run"), run.options);
  const Checkpoint last = open_checkpoint(run.out("run") / "step-000020");
  const Pool pool = read_pool(last.config());
  CHECK(pool.state == PoolState::Relocked);
  const Visibility m = Model::open(last, {})->visibility();
  int64_t closed = 0;
  for (const auto& row : m) {
    for (const double slot : row) CHECK((slot == 0.0 || slot == 1.0));
    closed += std::count(row.begin(), row.end(), 0.0);
  }
  CHECK(closed > 6);
  // Half faded it is opened, no more and no less; with cover 1 nothing used goes.
  run.options.stop_after = 12;
  train_model(run.model, run.out("half"), run.options);
  const Checkpoint half = open_checkpoint(run.out("half") / "step-000012");
  CHECK(read_pool(half.config()).state == PoolState::Opened);
  CHECK(largest_fraction(Model::open(half, {})->visibility()) > 0);
  run.options.stop_after = 0;
  run.options.relock.from = 0.2;
  CHECK_THAT(error_of([&] { train_model(run.model, run.out("none"), run.options); }),
             Catch::Contains("relock.from is 0.2, wanted at least open.until, 0.3"));
}

TEST_CASE("during psr held-out loss is given for drawn and for all slots", "[train]") {
  PicoRun run;
  run.options.open = {"psr", 0.1, 0.9};
  train_model(run.model, run.out("run"), run.options);
  int64_t both = 0;
  for (const Json& line : journal(run.out("run"))) {
    if (!line.contains("held_out_all_open")) continue;
    ++both;
    CHECK(line["held_out_all_open"] != line["held_out"]);
  }
  CHECK(both == 3);  // steps 5, 10 and 15
}

TEST_CASE("draws of psr do not depend on micro-batches", "[train]") {
  PicoRun run;
  run.options.open = {"psr", 0.1, 0.9};
  const Checkpoint checkpoint = open_checkpoint(run.model);
  const auto draws = [&](int64_t micro_batch, int64_t threads, int64_t seed) {
    TrainOptions options = run.options;
    options.micro_batch = micro_batch;
    options.seed = seed;
    set_threads(threads);
    Trainer trainer(checkpoint, checkpoint, options);
    std::vector<Visibility> drawn;
    while (!trainer.done()) {
      trainer.step();
      drawn.push_back(trainer.model().visibility());
    }
    return drawn;
  };
  const auto whole = draws(4, 1, 0);
  CHECK(whole == draws(1, 1, 0));
  CHECK(whole == draws(2, 2, 0));
  CHECK(whole != draws(4, 1, 1));
}

}  // namespace moue
