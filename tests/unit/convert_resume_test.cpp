// Conversions that are killed, stopped by a signal or begun twice: never a half under the final
// name, and the same command goes on.
#include <catch2/catch.hpp>

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <random>
#include <thread>

#include "core/files.h"
#include "moue/convert.h"
#include "moue/error.h"
#include "support/faults.h"
#include "support/files.h"
#include "support/loose_model.h"
#include "support/messages.h"
#include "support/program.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;
using Clock = std::chrono::steady_clock;

namespace {

const char* const kTiny = "examples/tiny-mixtral";

std::map<std::string, std::string> contents(const fs::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    files[entry.path().lexically_relative(directory)] = read_whole_file(entry.path(), "test");
  }
  return files;
}

Plan plan_of(int experts) {
  const Checkpoint source = open_checkpoint(kTiny);
  PlanOptions how;
  how.mode = "expand";
  how.experts = experts;
  return make_plan(source, family_of(source.config()), nullptr, how);
}

// Until one of two names stands, or for half a minute.
void wait_for(const fs::path& one, const fs::path& other) {
  const auto end = Clock::now() + std::chrono::seconds(30);
  while (!fs::exists(one) && !fs::exists(other) && Clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// Until the first of many shards is complete, or all are.
void wait_for_shard(const fs::path& partial, const fs::path& out) {
  wait_for(partial / ".moue-journal", out);
  const auto end = Clock::now() + std::chrono::seconds(30);
  while (Clock::now() < end && !fs::exists(out)) {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(partial, ignored)) {
      if (entry.path().filename().native().starts_with("model-0")) return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// `moue convert` as a process: many shards, and enough new experts that it takes a while.
class Conversion {
 public:
  explicit Conversion(const ScratchDir& scratch, int experts = 48)
      : out_(scratch / "out"), err_(scratch / "stderr") {
    const std::string moue = program(), plan = scratch / fmt::format("plan-{}.json", experts);
    if (!fs::exists(plan)) write_plan(plan_of(experts), plan);
    child_ = ::fork();
    if (child_ != 0) return;
    const int fd = ::open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    ::dup2(fd, 1);
    ::dup2(fd, 2);
    ::execl(moue.c_str(), "moue", "convert", kTiny, "--plan", plan.c_str(), "--layout", "packed",
            "--shard_size", "1MB", "--out", out_.c_str(), nullptr);
    ::_exit(127);
  }

  void send(int number) const { ::kill(child_, number); }

  // Its exit code, or 128 and the signal that ended it.
  int wait() const {
    int status = 0;
    ::waitpid(child_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  fs::path out() const { return out_; }
  std::string words() const { return file_text(err_); }

 private:
  fs::path out_, err_;
  pid_t child_ = -1;
};

void kill_at_random_times(int kills) {
  const ScratchDir scratch;
  const auto begin = Clock::now();
  const Conversion whole(scratch);
  REQUIRE(whole.wait() == 0);
  const std::chrono::duration<double> took = Clock::now() - begin;
  const auto wanted = contents(whole.out());
  fs::remove_all(whole.out());
  std::mt19937 random(5);
  int halves = 0;
  for (int i = 0; i < kills; ++i) {
    const Conversion killed(scratch);
    // Half of them from the start on, half of them within the writing.
    const bool within = i % 2 == 1;
    if (within) wait_for(scratch / ".out.moue-partial", killed.out());
    std::this_thread::sleep_for(took *
                                std::uniform_real_distribution(0.0, within ? 0.3 : 1.1)(random));
    killed.send(SIGKILL);
    killed.wait();
    halves += fs::exists(scratch / ".out.moue-partial");
    if (!fs::exists(killed.out())) {
      const Conversion again(scratch);
      INFO(again.words());
      REQUIRE(again.wait() == 0);
    }
    REQUIRE(contents(killed.out()) == wanted);
    CHECK_FALSE(fs::exists(scratch / ".out.moue-partial"));
    fs::remove_all(killed.out());
  }
  CHECK(halves > 0);  // some kills came in time
}

// A source of sixteen shards.
void write_sixteen_shards(const fs::path& to) {
  LooseModel model(kTiny);
  for (size_t i = 0; i < model.tensors.size(); ++i) {
    model.tensors[i].file =
        fmt::format("model-{:05}-of-00016.safetensors", 16 * i / model.tensors.size() + 1);
  }
  model.write(to);
}

// Linked: by copies, as between two disks without links. Packed: in some sixteen shards.
void convert_as(const std::string& layout, const fs::path& from, const fs::path& to,
                FaultyDisk& disk) {
  disk.lacks(disk::Call::Clone);
  disk.lacks(disk::Call::Link);
  const Checkpoint source = open_checkpoint(from);
  const Plan plan = make_plan(source, family_of(source.config()), nullptr, {});
  ConvertOptions options;
  options.layout = layout;
  options.shard_size = source.data_bytes() / 16;
  options.threads = 1;
  convert(source, plan, nullptr, to, options);
}

}  // namespace

TEST_CASE("a conversion killed at any time leaves nothing or all", "[resume]") {
  kill_at_random_times(10);
}

TEST_CASE("a conversion killed a hundred times", "[long][no_asan]") { kill_at_random_times(100); }

TEST_CASE("a signal stops a conversion with exit code 4, and the same command goes on",
          "[resume]") {
  const ScratchDir scratch;
  const int number = GENERATE(SIGINT, SIGTERM);
  const fs::path partial = scratch / ".out.moue-partial";
  bool stopped = false;
  for (int attempt = 0; attempt < 20 && !stopped; ++attempt) {
    const Conversion conversion(scratch, 96);
    wait_for_shard(partial, conversion.out());
    conversion.send(number);
    const int code = conversion.wait();
    INFO(conversion.words());
    stopped = code == 4;
    CHECK((stopped || code == 0));
    if (!stopped) {
      fs::remove_all(conversion.out());  // it had just completed
      continue;
    }
    CHECK_FALSE(fs::exists(conversion.out()));
    CHECK_THAT(conversion.words(),
               Catch::Contains("[convert] stopped by a signal; ") &&
                   Catch::Contains(".out.moue-partial: run the same command again to go on"));
    const Conversion again(scratch, 96);
    CHECK(again.wait() == 0);
    CHECK_THAT(again.words(), Catch::Contains("[files] going on in ") &&
                                  Catch::Contains("left by a run that was interrupted: "));
  }
  CHECK(stopped);
}

TEST_CASE("a second signal ends a conversion at once", "[resume]") {
  const ScratchDir scratch;
  const int code = in_child([&] {
    FaultyDisk disk(Fault::None, 400);
    disk.instead([] {
      ::raise(SIGTERM);
      ::raise(SIGTERM);
    });
    convert_as("packed", kTiny, scratch / "out", disk);
  });
  CHECK(code == 128 + SIGTERM);
  CHECK_FALSE(fs::exists(scratch / "out"));
}

TEST_CASE("two conversions to one name: one of them is refused", "[resume]") {
  const ScratchDir scratch;
  const ScratchDir other;
  const Conversion first(scratch, 96);
  wait_for(scratch / ".out.moue-partial/.moue-journal", first.out());
  const test::Outcome second =
      run(fmt::format("convert {} --out {} --quiet", kTiny, first.out().string()));
  CHECK(second.code == 2);
  const bool is_making = has(second.err, "out is being made by another process");
  CHECK((is_making || has(second.err, "out exists")));
  CHECK(first.wait() == 0);
}

TEST_CASE("a run that was half done moves at most 60 % of the bytes again", "[resume]") {
  const ScratchDir scratch;
  const std::string layout = GENERATE("linked", "packed");
  write_sixteen_shards(scratch / "source");
  uint64_t fresh = 0;
  {
    FaultyDisk disk;
    convert_as(layout, scratch / "source", scratch / "whole", disk);
    fresh = disk.bytes();
  }
  const auto moved_by_next = [&](const std::string& change) {
    fs::remove_all(scratch / "out");
    {
      FaultyDisk dies(Fault::Dead);
      dies.due_after(fresh / 2);
      CHECK(message_of([&] { convert_as(layout, scratch / "source", scratch / "out", dies); }) !=
            "");
    }
    CHECK_FALSE(fs::exists(scratch / "out"));
    if (!change.empty())
      fs::last_write_time(scratch / "source" / change, fs::file_time_type::clock::now());
    FaultyDisk disk;
    convert_as(layout, scratch / "source", scratch / "out", disk);
    const uint64_t moved = disk.bytes();
    CHECK(contents(scratch / "out") == contents(scratch / "whole"));
    return static_cast<double>(moved) / static_cast<double>(fresh);
  };
  const double share = moved_by_next("");
  INFO(layout << " " << share);
  CHECK(share <= 0.6);
  CHECK(moved_by_next("config.json") > 0.95);  // another job: nothing is kept
}
