// Every file call of a saved step, one by one: failed, interrupted, cut short, the last of its
// process. The step is then not there, the old one, or the new one, and the next save completes.
#include "support/torch_test.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <array>
#include <map>

#include "core/files.h"
#include "support/faults.h"
#include "support/files.h"
#include "support/torch_pico.h"
#include "train/checkpoint.h"
#include "train/loop.h"
#include "train/saver.h"
#include "train/trainer.h"

namespace moue {
namespace {

using namespace test;

using Contents = std::map<std::string, std::string>;

Contents contents(const fs::path& directory) {
  Contents files;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    const bool is_file = entry.is_regular_file();
    files[entry.path().lexically_relative(directory)] =
        is_file ? read_whole_file(entry.path(), "test") : "";
  }
  return files;
}

enum class How { Anew, Replacing, Background };

// A run after one step, saved again and again, in this thread or in one that it waits for.
class Saving {
 public:
  explicit Saving(How how) : how_(how), out_(run_.out("out")) {
    set_threads(1);  // nothing of it survives a fork
    run_.options.calibrate.tokens = 0;
    trainer_ = std::make_unique<Trainer>(open_checkpoint(run_.model), open_checkpoint(run_.model),
                                         run_.options);
    trainer_->step();
    old_ = saved("old");
    new_ = saved("new");
    REQUIRE(old_ != new_);
    FaultyDisk counting;
    save("new");
    calls_ = counting.calls();
  }

  uint64_t calls() const { return calls_; }

  // A fault at one call of a save, with a step of that name there before or not.
  std::string try_at(Fault fault, uint64_t at, uint64_t& points) {
    const bool replaces = how_ != How::Anew;
    renew();
    if (replaces) save("old");
    std::string message;
    if (fault == Fault::Exit) {
      points += kExited == in_child([&] {
                  FaultyDisk disk(fault, at);
                  save("new");
                });
    } else {
      FaultyDisk disk(fault, at);
      message = error_of([&] { save("new"); });
      points += disk.met().has_value();
    }
    std::string wrong = fault_of(replaces);
    const bool harmless = fault == Fault::Interruption || fault == Fault::Short;
    if (wrong.empty() && harmless && !message.empty()) wrong = "not survived: " + message;
    if (wrong.empty()) wrong = fault_of_next();
    return wrong.empty() ? "" : fmt::format("{} at {}: {}", to_string(fault), at, wrong);
  }

 private:
  void save(const char* recipe) const {
    if (how_ != How::Background) {
      trainer_->save(out_, recipe);
      return;
    }
    Saver saver;
    saver.start(trainer_->save_later(out_, recipe));
    saver.wait();
  }

  void renew() const {
    fs::remove_all(out_);
    fs::create_directory(out_);
  }

  Contents saved(const char* recipe) const {
    renew();
    save(recipe);
    return contents(out_ / step_name(1));
  }

  std::string fault_of(bool replaces) const {
    const fs::path step = out_ / step_name(1);
    const bool is_there = fs::exists(step);
    if (replaces && !is_there) return "the old step is gone";
    if (!is_there) return fs::exists(out_ / "latest") ? "latest names nothing" : "";
    const Contents now = contents(step);
    return now == new_ || (replaces && now == old_) ? "" : "the step is neither old nor new";
  }

  std::string fault_of_next() const {
    FaultyDisk quiet;
    const std::string message = error_of([&] { save("new"); });
    if (!message.empty()) return "the next save: " + message;
    if (contents(out_ / step_name(1)) != new_) return "the next save wrote something else";
    if (file_text(out_ / "latest") != step_name(1) + "\n") return "latest is wrong";
    const size_t names = std::distance(fs::directory_iterator(out_), fs::directory_iterator());
    return names == 2 ? "" : "the next save left something beside: " + listing(out_);
  }

  PicoRun run_;
  How how_;
  fs::path out_;
  std::unique_ptr<Trainer> trainer_;
  Contents old_, new_;
  uint64_t calls_ = 0;
};

void check_all(How how, uint64_t step) {
  constexpr std::array kFaults = {Fault::InputOutput, Fault::NoSpace, Fault::Interruption,
                                  Fault::Short,       Fault::Exit,    Fault::Dead};
  Saving saving(how);
  uint64_t points = 0;
  for (size_t i = 0; i < kFaults.size(); ++i) {
    for (uint64_t at = i % step; at < saving.calls(); at += step) {
      const std::string wrong = saving.try_at(kFaults[i], at, points);
      if (!wrong.empty()) FAIL_CHECK(wrong);
    }
  }
  INFO(saving.calls() << " calls, " << points << " points");
  CHECK(points > 5 * (saving.calls() / step));
}

}  // namespace

TEST_CASE("two runs do not write into one directory", "[train]") {
  PicoRun run;
  run.options.steps = 2;
  run.options.calibrate.tokens = 0;
  run.options.stop_after = 1;
  const fs::path out = run.out("out");
  train_model(run.model, out, run.options);
  const Contents before = contents(out);
  run.options.resume = true;
  {
    const Descriptor other(disk::open(out, O_RDONLY | O_DIRECTORY));
    REQUIRE(lock_partial(other, out));
    CHECK(error_of([&] { train_model(run.model, out, run.options); }) ==
          "[train] " + out.native() + " is being written by another run; name another --out");
    CHECK((contents(out) == before));
  }
  CHECK(error_of([&] { train_model(run.model, out, run.options); }) == "");
}

TEST_CASE("every file call of a saved step", "[faults]") {
  check_all(GENERATE(How::Anew, How::Replacing, How::Background), 5);
}

TEST_CASE("every file call of a saved step, with every fault", "[long]") {
  check_all(GENERATE(How::Anew, How::Replacing, How::Background), 1);
}

}  // namespace moue
