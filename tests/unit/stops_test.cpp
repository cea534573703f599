// SIGTERM sixty times in one run, in every stage and at every moment of a step: each time it saves
// within a step, and what is resumed is the run that nobody stopped.
#include "support/torch_test.h"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/disk.h"
#include "core/philox.h"
#include "moue/error.h"
#include "moue/log.h"
#include "support/torch_pico.h"
#include "train/loop.h"

namespace moue {
namespace {

using namespace test;

constexpr int kStops = 60;

// Where in a step the signal comes from.
enum class Moment { Step, Anywhere, HeldOut, Saving };

struct Signal {
  Moment moment = Moment::Step;
  int delay_us = 0;  ///< Anywhere: after the first step
  std::atomic<int64_t> done = -1;
  std::atomic<int64_t> raised_at = -1;  ///< steps done
  std::atomic<bool> armed = true;

  void raise() {
    if (!armed.exchange(false)) return;
    raised_at = done.load();
    std::raise(SIGTERM);
  }
};

// File calls of the thread that saves; nothing is synced.
class SavingThread : public disk::Hook {
 public:
  explicit SavingThread(Signal& signal) : signal_(signal), old_(disk::set_hook(this)) {}
  ~SavingThread() override { disk::set_hook(old_); }
  int before(disk::Call call, size_t&) override {
    const bool background = std::this_thread::get_id() != main_;
    if (background && signal_.moment == Moment::Saving && call == disk::Call::Rename)
      signal_.raise();
    return call == disk::Call::Sync ? disk::kSkip : 0;
  }
  void after(disk::Call, int64_t) override {}

 private:
  Signal& signal_;
  std::thread::id main_ = std::this_thread::get_id();
  disk::Hook* old_;
};

TrainOptions through_all_stages(TrainOptions options) {
  options.steps = 120;
  options.batch = 2;
  options.schedule = "wsd";
  options.open = {"psr", 0.2, 0.4};
  options.relock = {0.55, 0.7, 0.9};
  options.eval_every = 1;
  options.save_every = 1;
  options.keep_last = 2;
  return options;
}

// The message with which a run under this signal ends, "" where it ends by itself.
std::string run_under(Signal& signal, const PicoRun& run, const TrainOptions& options) {
  std::thread elsewhere;
  const LogSink before =
      set_log_sink({[&](std::string_view line) {
                      const bool held = line.find("held-out") != line.npos;
                      if (held && signal.done >= 0 && signal.moment == Moment::HeldOut)
                        signal.raise();
                    },
                    [&](const Progress& progress) {
                      if (progress.stage != "train") return;
                      const bool first = signal.done < 0;
                      signal.done = static_cast<int64_t>(progress.done);
                      if (signal.moment == Moment::Step) signal.raise();
                      if (!first || signal.moment != Moment::Anywhere) return;
                      elsewhere = std::thread([&] {
                        std::this_thread::sleep_for(std::chrono::microseconds(signal.delay_us));
                        signal.raise();
                      });
                    }});
  std::string message;
  try {
    const SavingThread hook(signal);
    train_model(run.model, run.out("parts"), options);
  } catch (const Interrupted& stop) {
    message = stop.what();
  }
  if (elsewhere.joinable()) elsewhere.join();
  set_log_sink(before);
  return message;
}

}  // namespace

TEST_CASE("SIGTERM sixty times, in every stage", "[stops]") {
  // A signal that comes after a run has ended, which none should, is not the end of the test.
  void (*const old)(int) = std::signal(SIGTERM, [](int) {});
  PicoRun run;
  TrainOptions options = through_all_stages(run.options);
  {
    Signal none;
    none.armed = false;
    run.out("whole");
    const SavingThread quiet(none);
    train_model(run.model, run.out("whole"), options);
  }
  std::map<std::string, std::string> stage_of;  // by step
  for (const std::string& line : journal_lines(run.out("whole"))) {
    const auto json = nlohmann::json::parse(line);
    stage_of[std::to_string(json["step"].get<int64_t>())] = json["stage"];
  }
  std::map<std::string, int> stops;
  int missed = 0;
  for (int i = 0; i < kStops; ++i) {
    Signal signal;
    signal.moment = static_cast<Moment>(i % 4);
    signal.delay_us = static_cast<int>(philox(3, {static_cast<uint32_t>(i), 0, 0, 0})[0] % 8000);
    const std::string message = run_under(signal, run, options);
    CAPTURE(i, message);
    const std::string head = "[train] stopped after step ";
    REQUIRE(message.starts_with(head));
    const int64_t step = std::stoll(message.substr(head.size()));
    CHECK(step >= signal.raised_at);
    missed += step > signal.raised_at + 1;
    CHECK(file_text(run.out("parts") / "latest") == fmt::format("step-{:06}\n", step));
    ++stops[stage_of.at(std::to_string(step))];
    options.resume = true;
  }
  CHECK(missed == 0);
  for (const char* stage : {"warmup", "open", "full", "relock"}) {
    CAPTURE(stage);
    CHECK(stops[stage] >= 5);
  }
  Signal none;
  none.armed = false;
  CHECK(run_under(none, run, options).empty());
  CHECK(differing_files(run.out("whole") / "step-000120", run.out("parts") / "step-000120") ==
        std::vector<std::string>());
  CHECK(journal_lines(run.out("whole")) == journal_lines(run.out("parts")));
  std::signal(SIGTERM, old);
}

TEST_CASE("SIGTERM before the first step leaves nothing to resume, and says so", "[stops]") {
  PicoRun run;
  const LogSink before = set_log_sink({[](std::string_view line) {
                                         if (line.find("calibrated") != line.npos)
                                           std::raise(SIGTERM);
                                       },
                                       {}});
  const std::string message =
      error_of([&] { train_model(run.model, run.out("run"), run.options); });
  set_log_sink(before);
  CHECK_THAT(message, Catch::Contains("stopped before the first step, nothing was saved"));
  CHECK_FALSE(fs::exists(run.out("run")));
}

}  // namespace moue
