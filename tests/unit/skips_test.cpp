// Steps that must not count: exact numbers of skips, no trace of them, and the end of a hopeless
// run.
#include "support/torch_test.h"

#include <cmath>
#include <limits>
#include <set>

#include "core/philox.h"
#include "moue/safetensors.h"
#include "support/torch_pico.h"
#include "train/checkpoint.h"
#include "train/loop.h"
#include "train/trainer.h"

namespace moue {
namespace {

using namespace test;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// A tiny model that trains for long in little time.
struct LongRun : PicoRun {
  Checkpoint checkpoint = open_checkpoint(model);
  explicit LongRun(int64_t steps) {
    options.steps = steps;
    options.batch = 1;
    options.lr = 1e-3;
    options.schedule = "constant";
    options.calibrate.tokens = 0;
    options.open = {"distance", 0, 0};
  }
};

uint32_t draw(int64_t step) { return philox(17, {static_cast<uint32_t>(step), 0, 0, 0})[0]; }

void scale_all(std::vector<Parameter>& parameters, double factor) {
  for (Parameter& parameter : parameters)
    if (parameter.grad.defined()) parameter.grad.mul_(factor);
}

bool all_finite(Trainer& trainer) {
  for (const Parameter& parameter : trainer.model().parameters())
    if (!parameter.master.isfinite().all().item<bool>()) return false;
  return true;
}

// Tensors of a saved step, training/ included, with a number that is not finite.
int64_t not_finite(const fs::path& step) {
  int64_t count = 0;
  for (const auto& entry : fs::recursive_directory_iterator(step)) {
    if (entry.path().extension() != ".safetensors") continue;
    const SafetensorsFile file(entry.path());
    for (const TensorInfo& tensor : file.tensors()) {
      for (const double value : file.values(tensor.name)) count += !std::isfinite(value);
    }
  }
  return count;
}

}  // namespace

TEST_CASE("a NaN at twenty random steps costs twenty steps and leaves no trace", "[skips]") {
  LongRun run(100);
  Trainer trainer(run.checkpoint, run.checkpoint, run.options);
  std::set<int64_t> poisoned;
  for (int64_t i = 0; poisoned.size() < 20; ++i) poisoned.insert(draw(i) % 100);
  trainer.tamper = [&](int64_t step, std::vector<Parameter>& parameters, double& loss) {
    if (!poisoned.contains(step)) return;
    // Now the loss, now one element of one gradient.
    if (step % 3 == 0) loss = kNaN;
    Parameter& victim = parameters[draw(step) % parameters.size()];
    if (step % 3 != 0 && victim.grad.numel() > 0) victim.grad.view({-1})[0] = kNaN;
    if (step % 3 != 0 && victim.grad.numel() == 0) loss = kNaN;
  };
  run.options.spike = 0;
  while (!trainer.done()) {
    const bool bad = poisoned.contains(trainer.state().step);
    const StepRecord record = trainer.step();
    CHECK(record.skipped == bad);
    CHECK_FALSE(record.spike);
    CHECK((trainer.state().losses.values.empty() || std::isfinite(record.mean_loss)));
  }
  CHECK(trainer.state().skips.total == 20);
  CHECK(trainer.state().skips.spikes == 0);
  CHECK(all_finite(trainer));
  CHECK(trainer.model().pool_bias().isfinite().all().item<bool>());
}

TEST_CASE("spikes of ten times the usual are skipped, all of them and nothing else", "[skips]") {
  LongRun run(150);
  run.options.batch = 8;
  run.options.spike = 4;
  const bool in_loss = GENERATE(false, true);
  std::set<int64_t> spikes;
  for (int64_t i = 0; spikes.size() < 30; ++i) spikes.insert(50 + draw(i) % 100);
  Trainer trainer(run.checkpoint, run.checkpoint, run.options);
  trainer.tamper = [&](int64_t step, std::vector<Parameter>& parameters, double& loss) {
    if (spikes.contains(step) && in_loss) loss *= 10;
    if (spikes.contains(step) && !in_loss) scale_all(parameters, 10);
  };
  while (!trainer.done()) {
    const int64_t step = trainer.state().step;
    CAPTURE(step, in_loss);
    const StepRecord record = trainer.step();
    CHECK(record.spike == spikes.contains(step));
    CHECK(record.skipped == record.spike);
  }
  CHECK(trainer.state().skips.spikes == 30);
}

TEST_CASE("spike = 0 takes every finite step", "[skips]") {
  LongRun run(60);
  run.options.spike = 0;
  Trainer trainer(run.checkpoint, run.checkpoint, run.options);
  trainer.tamper = [&](int64_t step, std::vector<Parameter>& parameters, double&) {
    if (step > 40) scale_all(parameters, 10);
  };
  while (!trainer.done()) CHECK_FALSE(trainer.step().skipped);
}

TEST_CASE("a thousand bad batches, never max_skips in a row, then max_skips", "[skips]") {
  LongRun run(4000);
  run.options.length = 4;
  run.options.max_skips = 6;
  run.options.pool_bias = 0;
  Trainer trainer(run.checkpoint, run.checkpoint, run.options);
  // 1 to 5 bad batches, then a good one; NaN, infinity and spikes by turns.
  std::vector<bool> bad(40, false);
  int64_t wanted = 0;
  while (wanted < 1000) {
    const int64_t row = 1 + draw(static_cast<int64_t>(bad.size())) % 5;
    for (int64_t i = 0; i < row && wanted < 1000; ++i, ++wanted) bad.push_back(true);
    bad.push_back(false);
  }
  trainer.tamper = [&](int64_t step, std::vector<Parameter>& parameters, double& loss) {
    if (step >= static_cast<int64_t>(bad.size()))
      loss = kNaN;
    else if (bad[step] && step % 3 == 0)
      scale_all(parameters, 1000);
    else if (bad[step] && step % 3 == 1)
      loss = std::numeric_limits<double>::infinity();
    else if (bad[step])
      scale_all(parameters, kNaN);
  };
  int64_t wrong = 0, longest = 0;
  for (const bool is_bad : bad) {
    wrong += trainer.step().skipped != is_bad;
    longest = std::max(longest, trainer.state().skips.in_a_row);
  }
  CHECK(wrong == 0);
  CHECK(trainer.state().skips.total == 1000);
  CHECK(longest == run.options.max_skips - 1);
  CHECK(all_finite(trainer));
}

TEST_CASE("max_skips in a row end the run with a checkpoint that is whole", "[skips]") {
  PicoRun run;
  change_tensors(run.model / "model-00001-of-00009.safetensors",
                 [](const auto&, auto& values) { values[0] = kNaN; });
  run.options.steps = 30;
  run.options.max_skips = 7;
  run.options.calibrate.tokens = 0;
  run.options.open.from = 0;
  const std::string message =
      error_of([&] { train_model(run.model, run.out("run"), run.options); });
  CHECK_THAT(message,
             Catch::Contains("step 7: 7 steps in a row were skipped, 0 of all 7 as spikes"));
  CHECK(file_text(run.out("run") / "latest") == "step-000007\n");
}

TEST_CASE("no NaN is ever saved", "[skips]") {
  LongRun run(30);
  Trainer trainer(run.checkpoint, run.checkpoint, run.options);
  trainer.tamper = [](int64_t step, std::vector<Parameter>& parameters, double&) {
    if (step % 2 == 1) scale_all(parameters, kNaN);
  };
  fs::create_directory(run.out("run"));
  while (!trainer.done()) trainer.step();
  CHECK(trainer.state().skips.total == 15);
  CHECK(not_finite(trainer.save(run.out("run"), "")) == 0);
  // Control: a NaN in a moment would be seen.
  trainer.model().parameters()[1].master.view({-1})[0] = kNaN;
  trainer.state().step = 31;
  CHECK(not_finite(trainer.save(run.out("run"), "")) > 0);
}

}  // namespace moue
