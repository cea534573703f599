// Checkpoints in the background: the same bytes, one at a time, errors and signals meanwhile, and
// how short the run stands still.
#include "support/torch_test.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <thread>

#include "moue/error.h"
#include "moue/log.h"
#include "support/faults.h"
#include "support/torch_pico.h"
#include "train/loop.h"
#include "train/saver.h"
#include "train/trainer.h"

namespace moue {
namespace {

using namespace test;
using Clock = std::chrono::steady_clock;

const std::vector<std::string> kNone;

double seconds_of(const std::function<void()>& action) {
  const Clock::time_point begin = Clock::now();
  action();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Calls `meanwhile(number)` before the file calls of other threads than the one that made it; what
// that returns is what becomes of the call. fsync is left out.
class Background : public disk::Hook {
 public:
  explicit Background(std::function<int(disk::Call, int64_t)> meanwhile)
      : meanwhile_(std::move(meanwhile)), old_(disk::set_hook(this)) {}
  ~Background() override { disk::set_hook(old_); }
  int before(disk::Call call, size_t&) override {
    const int verdict = std::this_thread::get_id() == main_ ? 0 : meanwhile_(call, number_++);
    return verdict == 0 && call == disk::Call::Sync ? disk::kSkip : verdict;
  }
  void after(disk::Call, int64_t) override {}

 private:
  std::function<int(disk::Call, int64_t)> meanwhile_;
  std::thread::id main_ = std::this_thread::get_id();
  int64_t number_ = 0;
  disk::Hook* old_;
};

}  // namespace

TEST_CASE("steps saved in the background are those that the run waited for", "[saver]") {
  PicoRun run;
  run.options.dtype = GENERATE("float32", "bfloat16");
  run.options.ema = 0.9;
  run.options.save_every = 3;
  run.options.freeze = {"lm_head.weight"};
  run.options.save_mode = "sync";
  train_model(run.model, run.out("sync"), run.options);
  run.options.save_mode = "async";
  // Slow enough that steps go on meanwhile.
  int64_t later = 0;
  {
    std::atomic<int64_t> step = 0;
    const LogSink before =
        set_log_sink({{}, [&](const Progress& p) { step = static_cast<int64_t>(p.done); }});
    int64_t begun = -1;
    const Background slow([&](disk::Call call, int64_t) {
      if (call == disk::Call::MakeDirectory) begun = step;
      if (call == disk::Call::Rename) std::this_thread::sleep_for(std::chrono::milliseconds(3));
      later = std::max<int64_t>(later, step - begun);
      return 0;
    });
    train_model(run.model, run.out("async"), run.options);
    set_log_sink(before);
  }
  CHECK(later > 0);
  for (const int64_t step : {3, 6, 9, 12, 15, 18, 20}) {
    CAPTURE(step);
    const auto saved = [&](const char* name) { return run.out(name) / step_name(step); };
    REQUIRE(fs::exists(saved("async")));
    CHECK(differing_files(saved("sync"), saved("async")) == kNone);
  }
  CHECK(journal_lines(run.out("sync")) == journal_lines(run.out("async")));
}

TEST_CASE("a copy stands still while the run goes on, and what is no copy does not", "[saver]") {
  PicoRun run;
  run.options.dtype = GENERATE("float32", "bfloat16");
  run.options.calibrate.tokens = 0;
  run.options.open = {"distance", 0, 0};
  const Checkpoint checkpoint = open_checkpoint(run.model);
  Trainer trainer(checkpoint, checkpoint, run.options);
  trainer.step();
  for (const char* name : {"now", "later"}) fs::create_directory(run.out(name));
  trainer.save(run.out("now"), "");
  const auto write = trainer.save_later(run.out("later"), "");
  for (int i = 0; i < 3; ++i) trainer.step();
  write();
  CHECK(differing_files(run.out("now"), run.out("later")) == kNone);
  // Control: three steps on, every weight and moment has changed.
  trainer.state().step = 1;
  fs::create_directory(run.out("moved"));
  trainer.save(run.out("moved"), "");
  const auto moved = differing_files(run.out("now"), run.out("moved"));
  CHECK(std::count_if(moved.begin(), moved.end(), [](const std::string& file) {
          return file.ends_with(".safetensors");
        }) == 5);  // weights, the pool's, both moments, counts
}

TEST_CASE("a save in the background that fails ends the run at the next step", "[saver]") {
  PicoRun run;
  train_model(run.model, run.out("whole"), run.options);
  run.options.save_every = 4;
  std::atomic<int64_t> saves = 0;
  std::string message;
  {
    const Background failing([&](disk::Call call, int64_t) {
      saves += call == disk::Call::MakeDirectory;
      return saves > 3 && call == disk::Call::Write ? ENOSPC : 0;
    });
    message = error_of([&] { train_model(run.model, run.out("run"), run.options); });
  }
  CHECK_THAT(message, Catch::Contains("could not be written after") &&
                          Catch::Contains("No space left on device"));
  CHECK_THAT(message, Catch::Contains("step-0000"));
  const std::string latest = file_text(run.out("run") / "latest");
  CHECK_FALSE(fs::exists(run.out("run") / "step-000020"));
  INFO(latest);
  REQUIRE(latest.starts_with("step-0000"));
  run.options.resume = true;
  train_model(run.model, run.out("run"), run.options);
  CHECK(differing_files(run.out("whole") / "step-000020", run.out("run") / "step-000020") == kNone);
}

TEST_CASE("a signal during a save in the background: both saves complete", "[saver]") {
  PicoRun run;
  train_model(run.model, run.out("whole"), run.options);
  run.options.save_every = 3;
  const int64_t when = GENERATE(0, 5, 40, 80);
  std::string message;
  {
    const Background signal([&](disk::Call, int64_t number) {
      if (number == when) std::raise(SIGTERM);
      return 0;
    });
    try {
      train_model(run.model, run.out("run"), run.options);
    } catch (const Interrupted& interrupted) {
      message = interrupted.what();
    }
  }
  CHECK_THAT(message, Catch::Contains("stopped after step"));
  CHECK(fs::exists(run.out("run") / "step-000003" / "moue-manifest.json"));
  const std::string latest = file_text(run.out("run") / "latest");
  CHECK_THAT(message, Catch::Contains(latest.substr(0, latest.size() - 1)));
  run.options.resume = true;
  train_model(run.model, run.out("run"), run.options);
  CHECK(differing_files(run.out("whole") / "step-000020", run.out("run") / "step-000020") == kNone);
}

TEST_CASE("a second signal ends the process, and what it was writing is no step", "[saver]") {
  PicoRun run;
  run.options.save_every = 3;
  const int code = in_child([&] {
    const Background signals([](disk::Call, int64_t number) {
      if (number == 20 || number == 21) std::raise(SIGTERM);
      return 0;
    });
    train_model(run.model, run.out("run"), run.options);
  });
  CHECK(code == 128 + SIGTERM);
  CHECK_FALSE(fs::exists(run.out("run") / "latest"));
  CHECK_FALSE(fs::exists(run.out("run") / "step-000003"));
  run.options.resume = true;
  train_model(run.model, run.out("run"), run.options);  // starts anew, over what was left
  CHECK(file_text(run.out("run") / "latest") == "step-000020\n");
}

TEST_CASE("no room is said before anything is copied", "[saver]") {
  PicoRun run;
  const Checkpoint checkpoint = open_checkpoint(run.model);
  Trainer trainer(checkpoint, checkpoint, run.options);
  trainer.step();
  fs::create_directory(run.out("run"));
  FaultyDisk full;
  full.lacks(disk::Call::Space);
  CHECK_THAT(error_of([&] { trainer.save_later(run.out("run"), ""); }),
             Catch::Contains("free space is unknown"));
  CHECK(full.calls(disk::Call::Write) == 0);
}

TEST_CASE("what a saver's thread throws comes out of check or wait, once", "[saver]") {
  Saver saver;
  CHECK(saver.saved().empty());
  saver.start([]() -> fs::path { fail("train", "a fault of this test"); });
  while (error_of([&] { saver.check(); }).empty()) std::this_thread::yield();
  CHECK(error_of([&] { saver.wait(); }).empty());
  saver.start([] { return fs::path("step"); });
  saver.wait();
  CHECK(saver.saved() == "step");
}

// The run stands still for the copy alone.
TEST_CASE("the stall of a save in the background", "[saver]") {
  PicoRun run;
  run.options.control = true;
  run.options.length = 64;
  run.options.threads = 0;
  run.options.held_out.clear();
  const Checkpoint source = open_checkpoint("examples/tiny-mixtral");
  Trainer trainer(source, source, run.options);
  for (const char* name : {"sync", "async"}) fs::create_directory(run.out(name));
  trainer.step();
  std::vector<double> steps, busy_steps, stalls, waits;
  for (int i = 0; i < 5; ++i) {
    steps.push_back(seconds_of([&] { trainer.step(); }));
    waits.push_back(seconds_of([&] { trainer.save(run.out("sync"), ""); }));
    Saver saver;
    stalls.push_back(seconds_of([&] { saver.start(trainer.save_later(run.out("async"), "")); }));
    busy_steps.push_back(seconds_of([&] { trainer.step(); }));
    saver.wait();
  }
  const double stall = median(stalls), wait = median(waits), step = median(steps);
  const std::string numbers = fmt::format(
      "stall {:.1f} ms, a save that is waited for {:.1f} ms ({:.2f} of it), step {:.1f} "
      "ms, with a save under way {:.1f} ms",
      1e3 * stall, 1e3 * wait, stall / wait, 1e3 * step, 1e3 * median(busy_steps));
  INFO(numbers);
  CHECK(stall < 0.5 * wait);
  CHECK(stall < step);
}

}  // namespace moue
