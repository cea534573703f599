// Memory: what a run would take against what it took, and the report where there is too little.
#include "support/torch_test.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>

#include "moue/convert.h"
#include "moue/initial.h"
#include "moue/recipe.h"
#include "support/families.h"
#include "support/headers_only.h"
#include "support/layouts.h"
#include "support/program.h"
#include "support/torch_pico.h"
#include "train/dry_run.h"
#include "train/estimate.h"
#include "train/loop.h"
#include "train/memory.h"
#include "train/state.h"
#include "train/trainer.h"

namespace moue {
namespace {

using namespace test;

uint64_t virtual_bytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t pages = 0;
  file >> pages;
  return pages * static_cast<uint64_t>(::sysconf(_SC_PAGE_SIZE));
}

// The most memory the program had, read from outside while it ran; 0 where it failed.
double peak_of(const std::string& words) {
  const std::string command = "exec " + program() + " " + words + " > /dev/null";
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    ::_exit(127);
  }
  const std::string status = "/proc/" + std::to_string(child) + "/status";
  double peak = 0;
  int code = 0;
  while (::waitpid(child, &code, WNOHANG) == 0) {
    std::ifstream file(status);
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with("VmHWM:")) peak = std::stod(line.substr(6)) * 1024;
    }
    ::usleep(5000);
  }
  return code == 0 ? peak : 0;
}

// So many bytes more than the process has now, while it lives.
class Limit {
 public:
  explicit Limit(uint64_t more) {
    ::getrlimit(RLIMIT_AS, &old_);
    rlimit now = old_;
    now.rlim_cur = virtual_bytes() + more;
    ::setrlimit(RLIMIT_AS, &now);
  }
  ~Limit() { ::setrlimit(RLIMIT_AS, &old_); }

 private:
  rlimit old_{};
};

TrainOptions tiny(int64_t batch, int64_t micro_batch) {
  TrainOptions options;
  options.tokens = "examples/tiny-mixtral/data/more.u16";
  options.control = true;
  options.batch = batch;
  options.micro_batch = micro_batch;
  options.steps = 2;
  options.threads = 1;
  options.calibrate.tokens = 0;
  return options;
}

double fact(const Report& report, const std::string& key) {
  for (const Fact& each : report.facts) {
    if (each.key != key) continue;
    if (const auto* whole = std::get_if<int64_t>(&each.value)) return static_cast<double>(*whole);
    return std::get<double>(each.value);
  }
  FAIL("no fact " << key);
  return 0;
}

double part(const Estimate& estimate, const std::string& key) {
  for (const MemoryPart& each : estimate.memory) {
    if (each.key == key) return each.bytes;
  }
  FAIL("no part " << key);
  return 0;
}

Estimate estimated(const fs::path& model, const TrainOptions& options) {
  const Checkpoint checkpoint = open_checkpoint(model);
  return Estimator(checkpoint).estimate(settled(options));
}

uint64_t bytes_below(const fs::path& directory) {
  uint64_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    if (entry.is_regular_file()) bytes += entry.file_size();
  }
  return bytes;
}

const fs::path kTiny = "examples/tiny-mixtral";

}  // namespace

TEST_CASE("out of memory names what it was for and the setting to change", "[train]") {
  const Checkpoint source = open_checkpoint(kTiny);
  const TrainOptions options = tiny(64, 64);
  set_threads(1);  // a thread that cannot be made ends the process
  {
    const Limit limit(uint64_t{8} << 20);
    const std::string message = error_of([&] { Trainer(source, source, options); });
    CHECK_THAT(message, Catch::Contains("[train] out of memory for "));
    CHECK_THAT(message, Catch::Contains("while loading weights and making their gradients; try "
                                        "freeze = [\"*.experts.*\"]"));
  }
  Trainer trainer(source, source, options);
  {
    const Limit limit(uint64_t{100} << 20);
    const std::string message = error_of([&] { trainer.step(); });
    CHECK_THAT(message, Catch::Contains("[train] out of memory for "));
    CHECK_THAT(message, Catch::Contains(" MiB while making step 1 on 64 rows of 256 tokens at a "
                                        "time; try micro_batch = 32 or recompute = true or dtype"));
    CHECK_THAT(message, Catch::Contains("--dry_run says what each part takes"));
  }
}

TEST_CASE("less precision, a teacher and copies are counted", "[train]") {
  TrainOptions options = tiny(4, 1);
  options.dtype = "bfloat16";
  options.save_mode = "sync";
  options.save_every = 1;
  const Estimate wide = estimated(kTiny, options);
  CHECK(part(wide, "teacher") == 0);
  CHECK(part(wide, "copy") == 0);
  options.save_mode = "async";
  CHECK(part(estimated(kTiny, options), "copy") == part(wide, "masters") + part(wide, "moments"));
  options.moments = "bfloat16";
  options.master = "none";
  options.distill = 0.5;
  const Estimate narrow = estimated(kTiny, options);
  CHECK(part(narrow, "moments") == part(wide, "moments") / 2);
  CHECK(part(narrow, "masters") == 0);
  CHECK(part(narrow, "copy") == part(narrow, "weights") + part(narrow, "moments"));
  CHECK(part(narrow, "teacher") == part(narrow, "weights"));
  CHECK(wide.checkpoint - narrow.checkpoint == part(wide, "masters") + part(narrow, "moments"));
  CHECK(narrow.step_work > wide.step_work);
}

TEST_CASE("what takes less memory is what is not in use", "[train]") {
  TrainOptions options = tiny(4, 1);
  CHECK(less_memory_in_steps(options) == "try recompute = true or dtype = \"bfloat16\"");
  options.recompute = true;
  options.dtype = "bfloat16";
  CHECK(less_memory_in_steps(options) == "try length below 256");
  options.ema = 0.9;
  CHECK(less_memory_in_weights(options) ==
        "try freeze = [\"*.experts.*\"] or ema = 0 or moments = \"bfloat16\" or master = \"none\"");
  CHECK_THROWS_WITH(within_memory("a", "b", [] { throw std::bad_alloc(); }),
                    "[train] out of memory while a; b; --dry_run says what each part takes");
  CHECK_THROWS_AS(within_memory("a", "b", [] { throw std::runtime_error("c"); }),
                  std::runtime_error);
}

TEST_CASE("weights, gradients, moments and disk are predicted to the byte", "[train]") {
  const std::string dtype = GENERATE("float32", "bfloat16");
  const bool frozen = GENERATE(false, true);
  PicoRun run;
  run.options.dtype = dtype;
  run.options.ema = 0.9;
  run.options.steps = 1;
  if (frozen) run.options.freeze = {"*.experts.*"};
  const Estimate estimate = estimated(run.model, run.options);
  const Checkpoint source = open_checkpoint(run.model);
  Trainer trainer(source, source, run.options);
  uint64_t values = 0, masters = 0, gradients = 0;
  for (const Parameter& parameter : trainer.model().parameters()) {
    values += parameter.value.nbytes();
    if (parameter.master.defined() && !parameter.master.is_alias_of(parameter.value))
      masters += parameter.master.nbytes();
    gradients += parameter.grad.defined() ? parameter.grad.nbytes() : 0;
  }
  CHECK(part(estimate, "weights") == static_cast<double>(values));
  CHECK(part(estimate, "masters") == static_cast<double>(masters));
  CHECK(part(estimate, "gradients") >= static_cast<double>(gradients));
  if (dtype == "float32") CHECK(part(estimate, "gradients") == static_cast<double>(gradients));
  CHECK(part(estimate, "moments") == static_cast<double>(2 * gradients));
  train_model(run.model, run.out("run"), run.options);
  // Beside tensors a step holds headers, config, manifest and state.
  const auto written = static_cast<double>(bytes_below(run.out("run") / "step-000001"));
  CHECK(estimate.checkpoint <= written);
  CHECK(estimate.checkpoint > written - 80'000);
}

TEST_CASE("peak memory is predicted within its bound", "[train]") {
  constexpr double kPeakMemory = 0.2;  // relative: what allocators keep differs by run
  struct Case {
    int64_t rows;
    bool recompute;
    const char* dtype;
  };
  for (const Case& c : {Case{64, false, "float32"}, Case{64, true, "float32"},
                        Case{16, false, "float32"}, Case{64, false, "bfloat16"}}) {
    TrainOptions options = tiny(c.rows, c.rows);
    options.recompute = c.recompute;
    options.dtype = c.dtype;
    const Scratch scratch;
    const Estimate estimate = estimated(kTiny, options);
    const std::string words = fmt::format(
        "train {} --control --tokens {} --steps 2 --batch {} --threads 2 --dtype {} {} "
        "--quiet --eval_every 0 --out {}",
        kTiny.string(), options.tokens.string(), c.rows, c.dtype, c.recompute ? "--recompute" : "",
        (scratch / "run").string());
    const double measured = peak_of(words);
    REQUIRE(measured > 0);
    INFO(words << "\npredicted " << estimate.peak() / 1e6 << " MB, measured " << measured / 1e6);
    for (const MemoryPart& each : estimate.memory)
      UNSCOPED_INFO(each.title << " " << each.bytes / 1e6);
    CHECK(std::abs(estimate.peak() / measured - 1) < kPeakMemory);
  }
}

TEST_CASE("a dry run says what fits and what would", "[train]") {
  TrainOptions options = tiny(64, 0);
  options.product_rate = 0.1;
  options.device_memory = 600'000'000;
  const Checkpoint model = open_checkpoint(kTiny);
  const Report report = estimate_run(model, "runs/none", options);
  CHECK(fact(report, "parameters") == 4860032);
  // Six operations for each parameter that a token meets, and for its scores.
  const double met = 4860032 - 8 * 6 * 3 * 128 * 160 - 2048 * 128 + 8 * 256 * 128;
  CHECK(fact(report, "step_work") == Approx(6.0 * 64 * 256 * met).epsilon(0.005));
  CHECK(fact(report, "step_seconds") == Approx(fact(report, "step_work") / 0.06e12));
  REQUIRE(report.warnings.size() == 1);
  CHECK_THAT(report.warnings[0], Catch::Contains("as asked it does not fit 572.2 MiB; with "));
  options.device_memory = 60'000'000'000;
  CHECK(estimate_run(model, "runs/none", options).warnings.empty());
  options.device = "cuda";
  options.device_memory = 1'000'000;
  const Report none = estimate_run(model, "runs/none", options);
  CHECK_THAT(none.warnings.at(0), Catch::Contains("nothing of this fits 976.6 KiB"));
  options.save_every = 1;
  options.steps = 10;
  CHECK(fact(estimate_run(model, "runs/none", options), "checkpoints") == 10);
  options.keep_last = 2;
  CHECK(fact(estimate_run(model, "runs/none", options), "checkpoints") == 3);
}

TEST_CASE("recomputation and frozen tensors take less, of every family", "[train]") {
  for (const std::string& folder : family_folders()) {
    INFO(folder);
    const Checkpoint model = initial_headers(folder);
    const Estimator estimator(model);
    TrainOptions options = tiny(8, 8);
    const Estimate plain = estimator.estimate(settled(options));
    options.recompute = true;
    const Estimate again = estimator.estimate(settled(options));
    CHECK(part(again, "activations") < part(plain, "activations"));
    CHECK(again.step_work > plain.step_work);
    options.freeze = {estimator.experts_pattern()};
    REQUIRE_FALSE(options.freeze[0].empty());
    const Estimate frozen = estimator.estimate(settled(options));
    CHECK(part(frozen, "moments") < part(again, "moments"));
    CHECK(frozen.step_work < again.step_work);
    CHECK(frozen.checkpoint < again.checkpoint);
  }
}

TEST_CASE("a dry run needs no files but a config", "[train][cli]") {
  const ScratchDir folder;
  const std::string words =
      "train --init examples/tiny-mixtral/config.json --dry_run --json "
      "--product_rate 1 --tokens none.u16 --out " +
      (folder / "run").string();
  const test::Outcome outcome = run(words + " --device cuda --device_memory 80GB --dtype bfloat16");
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  const auto json = nlohmann::json::parse(outcome.out);
  CHECK(json["facts"]["fits"] == true);
  CHECK(json["facts"]["device_memory"] == 80'000'000'000);
  CHECK(json["tables"].size() == 2);
  CHECK(fs::is_empty(folder.path()));
  // The model that would be made of it takes the same.
  const std::string made =
      "train --init examples/tiny-mixtral/config.json --steps 1 --batch 2 "
      "--calibrate.tokens 0 --quiet --threads 1 --tokens "
      "examples/tiny-mixtral/data/more.u16 --out " +
      (folder / "run").string();
  REQUIRE(run(made).code == 0);
  const test::Outcome again = run(words + " --device cuda --dtype bfloat16");
  CHECK(nlohmann::json::parse(again.out)["facts"]["peak_memory"] == json["facts"]["peak_memory"]);
  CHECK(nlohmann::json::parse(again.out)["facts"]["checkpoint"] == json["facts"]["checkpoint"]);
}

TEST_CASE("recipes of large models state what they take", "[train]") {
  const auto [recipe_name, released_name] = GENERATE(table<std::string, std::string>(
      {{"olmoe", "olmoe"}, {"qwen3_30b_a3b", "qwen3_moe"}, {"mixtral_8x7b", "mixtral"}}));
  std::string text = file_text("recipes/" + recipe_name + ".toml");
  const Recipe recipe = parse_recipe(text, recipe_name);
  Released model = released(released_name);
  for (TensorInfo& tensor : model.tensors) {
    tensor.bytes = 2;
    for (const int64_t size : tensor.shape) tensor.bytes *= static_cast<uint64_t>(size);
  }
  const Checkpoint source = headers_only(model.config, model.tensors);
  const Plan plan = make_plan(source, family_of(source.config()), nullptr, recipe.plan);
  const Checkpoint moue = planned_headers(source, plan);
  const Estimator estimator(moue);
  TrainOptions options = settled(recipe.train);
  text = std::regex_replace(text, std::regex("\n# "), " ");
  const auto states = [&](double bytes, const char* form, const char* words) {
    const std::string stated =
        fmt::format(fmt::runtime(form), bytes / double(uint64_t{1} << 30)) + " GiB" + words;
    INFO(stated);
    CHECK_THAT(text, Catch::Contains(stated));
  };
  const Estimate estimate = estimator.estimate(options);
  states(estimate.peak(), "{:.1f}", " there");
  states(estimate.largest, "{:.0f}", " on the host");
  const int64_t checkpoints = recipe_name == "olmoe" ? 3 : 2;
  states(estimate.checkpoint * static_cast<double>(checkpoints), "{:.0f}", " of disk");
  CHECK(estimate.peak() < 141e9);
  if (options.freeze.empty()) return;
  CHECK(options.freeze[0].ends_with(estimator.experts_pattern().substr(1)));
  options.freeze.clear();
  states(estimator.estimate(options).peak(), "{:.1f}", ", which no single card has");
}

}  // namespace moue
