// Less memory for weights and moments: what is kept, what it saves, that it resumes bit for bit and
// learns as float32 does.
#include "support/torch_test.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "moue/safetensors.h"
#include "support/tolerances.h"
#include "support/torch_pico.h"
#include "train/loop.h"
#include "train/optimizer.h"
#include "train/trainer.h"

namespace moue {
namespace {

using namespace test;

struct Precision {
  std::string dtype, moments, master;
};
const Precision kFull{"bfloat16", "float32", "float32"};
const Precision kNarrowMoments{"bfloat16", "bfloat16", "float32"};
const Precision kWide{"float32", "bfloat16", "float32"};
const Precision kNoMaster{"bfloat16", "bfloat16", "none"};

TrainOptions with(TrainOptions options, const Precision& p) {
  options.dtype = p.dtype;
  options.moments = p.moments;
  options.master = p.master;
  return options;
}

// Bytes of a file of training/, 0 where there is none.
uintmax_t size_of(const fs::path& step, const std::string& stem) {
  const fs::path file = step / "training" / (stem + "-00001-of-00001.safetensors");
  if (!fs::exists(file)) return 0;
  uintmax_t bytes = 0;
  for (const TensorInfo& tensor : SafetensorsFile(file).tensors()) bytes += tensor.bytes;
  return bytes;
}

// Bytes in memory of what a trained parameter has besides its gradient.
uint64_t held(Trainer& trainer) {
  uint64_t bytes = 0;
  for (const Parameter& parameter : trainer.model().parameters()) {
    bytes += parameter.value.nbytes();
    if (parameter.master.defined() && !parameter.master.is_alias_of(parameter.value))
      bytes += parameter.master.nbytes();
  }
  for (const Optimizer::Moments& moments : trainer.optimizer().moments())
    bytes += moments.first.nbytes() + moments.second.nbytes();
  return bytes;
}

bool has_weights(const std::vector<std::string>& files) {
  return std::any_of(files.begin(), files.end(),
                     [](const std::string& file) { return file.starts_with("model-0000"); });
}

const std::vector<std::string> kNone;

// A control on a bfloat16 source, where nothing but norms could hide in float32.
TrainOptions tiny(const PicoRun& run) {
  TrainOptions options = run.options;
  options.control = true;
  options.steps = 4;
  options.batch = 2;
  options.lr = 1e-3;
  options.calibrate.tokens = 0;
  options.held_out.clear();
  return options;
}

const fs::path kTiny = "examples/tiny-mixtral";

}  // namespace

TEST_CASE("bfloat16 moments are half of them, in memory and on disk", "[precision]") {
  PicoRun run;
  const Checkpoint source = open_checkpoint(kTiny);
  const auto bytes = [&](const Precision& p) {
    Trainer trainer(source, source, with(tiny(run), p));
    return static_cast<double>(held(trainer));
  };
  double parameters = 0;
  for (const TensorInfo& tensor : source.tensors())
    parameters += static_cast<double>(tensor.bytes) / 2;
  // 2 of the value, 4 of the master, 2 x 4 or 2 x 2 of the moments
  CHECK(bytes(kFull) / parameters == Approx(14).epsilon(1e-3));
  CHECK(bytes(kNarrowMoments) / parameters == Approx(10).epsilon(1e-3));
  CHECK(bytes(kNoMaster) / parameters == Approx(6).epsilon(1e-3));

  train_model(kTiny, run.out("full"), with(tiny(run), kFull));
  train_model(kTiny, run.out("less"), with(tiny(run), kNarrowMoments));
  train_model(kTiny, run.out("least"), with(tiny(run), kNoMaster));
  const auto step = [&](const char* name) { return run.out(name) / "step-000004"; };
  for (const char* moment : {"first_moment", "second_moment"}) {
    CHECK(size_of(step("full"), moment) == static_cast<uintmax_t>(4 * parameters));
    CHECK(size_of(step("less"), moment) == static_cast<uintmax_t>(2 * parameters));
    CHECK(size_of(step("least"), moment) == static_cast<uintmax_t>(2 * parameters));
  }
  CHECK(size_of(step("less"), "master") == static_cast<uintmax_t>(4 * parameters));
  CHECK(size_of(step("least"), "master") == 0);
}

TEST_CASE("a run of less precision resumes bit for bit", "[precision][resume]") {
  const Precision p = GENERATE(from_range(std::vector{kNarrowMoments, kWide, kNoMaster}));
  CAPTURE(p.dtype, p.moments, p.master);
  PicoRun run;
  const TrainOptions options = with(run.options, p);
  train_model(run.model, run.out("whole"), options);
  TrainOptions parts = options;
  parts.stop_after = 7;
  if (p.master == "none") parts.threads = 2;  // bits are drawn by element, whichever thread asks
  train_model(run.model, run.out("parts"), parts);
  parts.stop_after = 0;
  parts.resume = true;
  parts.threads = 1;
  train_model(run.model, run.out("parts"), parts);
  CHECK(differing_files(run.out("whole") / "step-000020", run.out("parts") / "step-000020") ==
        kNone);
  CHECK(journal_lines(run.out("whole")) == journal_lines(run.out("parts")));
}

TEST_CASE("a bfloat16 source without masters resumes bit for bit", "[precision][resume]") {
  PicoRun run;
  TrainOptions options = with(tiny(run), kNoMaster);
  train_model(kTiny, run.out("whole"), options);
  options.stop_after = 2;
  train_model(kTiny, run.out("half"), options);
  options.stop_after = 0;
  options.resume = true;
  train_model(kTiny, run.out("half"), options);
  CHECK(differing_files(run.out("whole") / "step-000004", run.out("half") / "step-000004") ==
        kNone);

  TrainOptions other = with(tiny(run), kFull);
  other.resume = true;
  CHECK_THAT(error_of([&] { train_model(kTiny, run.out("half"), other); }),
             Catch::Contains("master is float32, the run began with none") &&
                 Catch::Contains("moments is float32, the run began with bfloat16"));
}

TEST_CASE("a dropped counter is noticed: other steps, seeds and moments round otherwise",
          "[precision][resume]") {
  PicoRun run;
  TrainOptions options = with(run.options, kNoMaster);
  options.order = "sequential";
  train_model(run.model, run.out("whole"), options);
  options.stop_after = 10;
  train_model(run.model, run.out("half"), options);
  const fs::path step = run.out("half") / "step-000010";
  const fs::path state = step / "training" / "state.json";
  const std::string which = GENERATE("nothing", "seed", "moments");
  CAPTURE(which);
  options.stop_after = 0;
  options.resume = true;
  if (which == "seed") {  // of the rounding alone: the rows stand in the file's order
    replace_text(state, "\"seed\": \"0\"", "\"seed\": \"1\"");
    options.seed = 1;
  }
  if (which == "moments") {
    std::string file = file_text(step / "training" / "first_moment-00001-of-00001.safetensors");
    file.back() = static_cast<char>(file.back() ^ 1);
    write_text(step / "training" / "first_moment-00001-of-00001.safetensors", file);
  }
  renew_manifest(step);
  train_model(run.model, run.out("half"), options);
  const auto files =
      differing_files(run.out("whole") / "step-000020", run.out("half") / "step-000020");
  CHECK(has_weights(files) == (which != "nothing"));
}

TEST_CASE("runs of less precision learn what float32 does", "[precision]") {
  PicoRun run;
  run.options.steps = 60;
  run.options.eval_every = 0;
  const auto last = [&](const char* name, const Precision& p) {
    train_model(run.model, run.out(name), with(run.options, p));
    const auto lines = journal_lines(run.out(name));
    return nlohmann::json::parse(lines.back())["held_out"].get<double>();
  };
  const double wide = last("wide", {"float32", "float32", "float32"});
  const auto lines = journal_lines(run.out("wide"));
  const double first = nlohmann::json::parse(lines[1])["held_out"].get<double>();
  REQUIRE(first - wide > 0.3);
  CHECK(std::abs(last("less", kNarrowMoments) - wide) < 0.1 * (first - wide));
  CHECK(std::abs(last("least", kNoMaster) - wide) < 0.1 * (first - wide));
}

TEST_CASE("precisions that do not go together are refused by name", "[precision]") {
  PicoRun run;
  run.options.master = "none";
  run.options.ema = 0.5;
  run.options.moments = "float16";
  const std::string message =
      error_of([&] { train_model(run.model, run.out("run"), run.options); });
  CHECK_THAT(message, Catch::Contains("master is none, wanted with dtype bfloat16"));
  CHECK_THAT(message, Catch::Contains("ema is 0.5, wanted 0 where master is none"));
  CHECK_THAT(message, Catch::Contains("moments is 'float16', wanted one of float32, bfloat16"));
}

}  // namespace moue
