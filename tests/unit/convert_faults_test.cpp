// Every file call of a conversion, one by one: failed, interrupted, cut short, the last of its
// process. The result is then complete or not there, and the same command completes it.
#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <functional>
#include <map>

#include "core/files.h"
#include "core/tree.h"
#include "moue/convert.h"
#include "moue/error.h"
#include "support/faults.h"
#include "support/files.h"
#include "support/messages.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

const char* const kPico = "tests/golden/families/mixtral";

// Contents by name: what two conversions of one job must agree in.
std::map<std::string, std::string> contents(const fs::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    files[entry.path().lexically_relative(directory)] = read_whole_file(entry.path(), "test");
  }
  return files;
}

using Run = std::function<void(const fs::path& source, const fs::path& out)>;

// One thread: the n-th call is then the same in every run.
void convert_as(const fs::path& from, const fs::path& to, const std::string& layout) {
  const Checkpoint source = open_checkpoint(from);
  PlanOptions how;
  how.mode = "expand";
  how.experts = 4;
  const Plan plan = make_plan(source, family_of(source.config()), nullptr, how);
  ConvertOptions options;
  options.layout = layout;
  options.threads = 1;
  options.shard_size = 64 << 10;
  convert(source, plan, nullptr, to, options);
}

// Links or copies, the pool, new experts.
void convert_linked(const fs::path& from, const fs::path& to) { convert_as(from, to, "linked"); }
// Five shards and more.
void convert_packed(const fs::path& from, const fs::path& to) { convert_as(from, to, "packed"); }

// What no converter may do: each file under its final name at once.
void convert_carelessly(const fs::path& from, const fs::path& to) {
  make_directories(to, "test");
  for (const std::string& name : names_in(from, "test")) {
    if (!stands(to / name)) copy_file_whole(from / name, to / name, "test");
  }
}

// One command, whose result is held against an undisturbed one.
class Command {
 public:
  explicit Command(Run run, std::set<disk::Call> lacking = {})
      : run_(std::move(run)), lacking_(std::move(lacking)) {
    copy_tree(kPico, scratch_ / "source");
    FaultyDisk counting;
    go(counting);
    calls_ = counting.calls();
    wanted_ = contents(out());
    source_ = snapshot(scratch_ / "source");
    fs::remove_all(out());
  }

  uint64_t calls() const { return calls_; }
  bool touched_source() const { return snapshot(scratch_ / "source") != source_; }

  void go(FaultyDisk& disk) const {
    for (const disk::Call call : lacking_) disk.lacks(call);
    run_(scratch_ / "source", out());
  }

  // One fault at one call; what is wrong afterwards. Counts the points that were met.
  std::string try_at(Fault fault, uint64_t at, uint64_t& points) const {
    std::string message, call = "a call";
    if (fault == Fault::Exit) {
      points += kExited == in_child([&] {
                  FaultyDisk disk(fault, at);
                  go(disk);
                });
    } else {
      FaultyDisk disk(fault, at);
      message = message_of([&] { go(disk); });
      points += disk.met().has_value();
      if (disk.met()) call = to_string(*disk.met());
    }
    std::string wrong = fault_of_first();
    const bool harmless = fault == Fault::Interruption || fault == Fault::Short;
    if (wrong.empty() && harmless && !message.empty()) wrong = "not survived: " + message;
    if (wrong.empty()) wrong = fault_of_second();
    fs::remove_all(out());
    return wrong.empty() ? "" : fmt::format("{} at {} {}: {}", to_string(fault), call, at, wrong);
  }

 private:
  fs::path out() const { return scratch_ / "out"; }

  std::string fault_of_first() const {
    if (!fs::exists(fs::symlink_status(out()))) return "";
    return contents(out()) == wanted_ ? "" : "the result is there and is not the one wanted";
  }

  // The same command again, undisturbed.
  std::string fault_of_second() const {
    if (!fs::exists(out())) {
      FaultyDisk quiet;
      const std::string message = message_of([&] { go(quiet); });
      if (!message.empty()) return "the second run: " + message;
    }
    if (contents(out()) != wanted_) return "the second run made something else";
    if (fs::exists(scratch_ / ".out.moue-partial")) return "the second run left its staging";
    return "";
  }

  ScratchDir scratch_;
  Run run_;
  std::set<disk::Call> lacking_;
  uint64_t calls_ = 0;
  std::map<std::string, std::string> wanted_;
  std::map<std::string, FileState> source_;
};

constexpr std::array kFaults = {Fault::InputOutput, Fault::NoSpace, Fault::Interruption,
                                Fault::Short, Fault::Exit};

struct Trial {
  uint64_t points = 0;
  std::vector<std::string> wrong;
};

// Every `step`-th pair of call and fault.
Trial try_all(const Command& command, uint64_t step) {
  Trial trial;
  for (size_t i = 0; i < kFaults.size(); ++i) {
    for (uint64_t at = i % step; at < command.calls(); at += step) {
      std::string wrong = command.try_at(kFaults[i], at, trial.points);
      if (!wrong.empty()) trial.wrong.push_back(std::move(wrong));
    }
  }
  return trial;
}

void check_all(const Run& run, const std::set<disk::Call>& lacking, uint64_t step) {
  const Command command(run, lacking);
  const Trial trial = try_all(command, step);
  for (const std::string& wrong : trial.wrong) UNSCOPED_INFO(wrong);
  CHECK(trial.wrong.empty());
  CHECK(trial.points > 4 * (command.calls() / step));
  CHECK_FALSE(command.touched_source());
}

}  // namespace

TEST_CASE("every file call of a linked conversion", "[faults]") {
  check_all(convert_linked, {}, 8);
}
TEST_CASE("every file call of a conversion by copies", "[faults]") {
  check_all(convert_linked, {disk::Call::Clone, disk::Call::Link}, 8);
}
TEST_CASE("every file call of a packed conversion", "[faults]") {
  check_all(convert_packed, {}, 8);
}
TEST_CASE("every file call of a packed conversion, with every fault", "[long][no_asan]") {
  check_all(convert_packed, {}, 1);
}
TEST_CASE("every file call of a linked conversion, with every fault", "[long][no_asan]") {
  check_all(convert_linked, {}, 1);
}
TEST_CASE("every file call of a conversion by copies, with every fault", "[long][no_asan]") {
  check_all(convert_linked, {disk::Call::Clone, disk::Call::Link}, 1);
}

// A process of its own: tests/long/power_cut.py, whose control it is.
TEST_CASE("convert without syncs", "[.]") {
  const char *from = std::getenv("MOUE_TEST_FROM"), *to = std::getenv("MOUE_TEST_TO");
  if (from == nullptr || to == nullptr) return;
  FaultyDisk disk;
  convert_as(from, to, "linked");
}

TEST_CASE("a converter that writes under the final name is caught", "[faults]") {
  const Command careless(convert_carelessly);
  CHECK(try_all(careless, 5).wrong.size() > careless.calls() / 10);
}
