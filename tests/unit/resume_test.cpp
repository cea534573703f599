// A run in two processes is the run in one, bit for bit; and what must be restored for that.
#include "support/torch_test.h"

#include <unistd.h>

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "moue/checkpoint.h"
#include "moue/pool.h"
#include "moue/safetensors.h"
#include "support/torch_pico.h"
#include "train/loop.h"

namespace moue {
namespace {

using namespace test;

// The test "child" runs `--resume` on these in a process of its own.
void resume_in_fresh_process(const fs::path& scratch) {
  const std::string self = fs::read_symlink("/proc/self/exe").string();
  ::setenv("MOUE_TEST_RUN", scratch.c_str(), 1);
  const int status = std::system(("'" + self + "' 'resume child' > /dev/null").c_str());
  ::unsetenv("MOUE_TEST_RUN");
  REQUIRE(status == 0);
}

// A run stopped after 10 of its 20 steps, the whole run to compare with, and tampering between the
// two halves.
struct Stopped {
  PicoRun run;
  fs::path whole = run.out("whole");
  fs::path half = run.out("half");
  fs::path step = half / "step-000010";

  explicit Stopped(const std::string& dtype = "float32") {
    run.options.dtype = dtype;
    train_model(run.model, whole, run.options);
    TrainOptions options = run.options;
    options.stop_after = 10;
    train_model(run.model, half, options);
  }

  // Files of the last step that differ from the uninterrupted run's.
  std::vector<std::string> resumed() {
    renew_manifest(step);
    TrainOptions options = run.options;
    options.resume = true;
    train_model(run.model, half, options);
    return differing_files(whole / "step-000020", half / "step-000020");
  }
};

const std::vector<std::string> kNone;

bool has_weights(const std::vector<std::string>& files) {
  return std::any_of(files.begin(), files.end(),
                     [](const std::string& file) { return file.starts_with("model-00001"); });
}

// As change_tensors, for float64.
void change_f64(const fs::path& file,
                const std::function<void(const std::string&, std::vector<double>&)>& change) {
  std::vector<std::vector<std::byte>> bytes;
  std::vector<TensorView> views;
  const SafetensorsFile old(file);
  for (const TensorInfo& tensor : old.tensors()) {
    bytes.push_back(old.read(tensor));
    if (tensor.dtype == Dtype::F64) {
      std::vector<double> values(tensor.bytes / sizeof(double));
      std::memcpy(values.data(), bytes.back().data(), tensor.bytes);
      change(tensor.name, values);
      std::memcpy(bytes.back().data(), values.data(), tensor.bytes);
    }
    views.push_back({tensor.name, tensor.dtype, tensor.shape, bytes.back()});
  }
  fs::remove(file);
  write_safetensors(file, views);
}

void zero(const std::string&, std::vector<float>& values) {
  std::fill(values.begin(), values.end(), 0.0f);
}

}  // namespace

TEST_CASE("resume child", "[.]") {
  const char* scratch = std::getenv("MOUE_TEST_RUN");
  REQUIRE(scratch != nullptr);
  TrainOptions options = PicoRun().options;
  options.tokens = fs::path(scratch) / "train.u16";
  options.held_out = fs::path(scratch) / "held_out.u16";
  options.resume = true;
  train_model(fs::path(scratch) / "model", fs::path(scratch) / "half", options);
}

TEST_CASE("10 steps, a fresh process and 10 steps are 20 steps, bit for bit", "[resume]") {
  Stopped stopped;
  CHECK_FALSE(fs::exists(stopped.half / "step-000020"));
  resume_in_fresh_process(stopped.run.scratch.path());
  CHECK(differing_files(stopped.whole / "step-000020", stopped.half / "step-000020") == kNone);
  CHECK(journal_lines(stopped.whole) == journal_lines(stopped.half));
  CHECK(journal_lines(stopped.whole).size() == 20 + 5 + 1);  // held-out losses, effect of opening
  CHECK(file_text(stopped.half / "latest") == "step-000020\n");
}

// Trajectory, opening with draws, all open, closing again, closed; a group that starts late.
TrainOptions through_all_stages(TrainOptions options, const std::string& dtype) {
  options.dtype = dtype;
  options.steps = 100;
  options.batch = 2;
  options.schedule = "wsd";
  options.rewarm = 4;
  options.open = {"psr", 0.1, 0.4};
  options.relock = {0.6, 0.8, 0.9};
  options.groups = {{"*self_attn*", 0.5, 0.0, false, 55}};
  options.eval_every = 25;
  return options;
}

TEST_CASE("stages child", "[.]") {
  const fs::path scratch = std::getenv("MOUE_TEST_RUN");
  TrainOptions options = PicoRun().options;
  options.tokens = scratch / "train.u16";
  options.held_out = scratch / "held_out.u16";
  options = through_all_stages(options, std::getenv("MOUE_TEST_DTYPE"));
  options.resume = true;
  options.stop_after = std::stoll(std::getenv("MOUE_TEST_STOP"));
  train_model(scratch / "model", scratch / "parts", options);
}

TEST_CASE("stopped in every stage and resumed by fresh processes: the same 100 steps", "[resume]") {
  const std::string dtype = GENERATE("float32", "bfloat16");
  PicoRun run;
  TrainOptions options = through_all_stages(run.options, dtype);
  train_model(run.model, run.out("whole"), options);
  std::string stages;
  for (const std::string& line : journal_lines(run.out("whole"))) {
    const std::string stage = nlohmann::json::parse(line)["stage"];
    if (!stages.ends_with(stage)) stages += " " + stage;
  }
  CHECK(stages == " calibrate warmup open full relock");
  CHECK(read_pool(open_checkpoint(run.out("whole") / "step-000100").config()).state ==
        PoolState::Relocked);

  options.stop_after = 3;
  train_model(run.model, run.out("parts"), options);
  ::setenv("MOUE_TEST_RUN", run.scratch.path().c_str(), 1);
  ::setenv("MOUE_TEST_DTYPE", dtype.c_str(), 1);
  const std::string self = fs::read_symlink("/proc/self/exe").string();
  for (const char* stop : {"10", "25", "39", "50", "60", "70", "90", "0"}) {
    ::setenv("MOUE_TEST_STOP", stop, 1);
    REQUIRE(std::system(("'" + self + "' 'stages child' > /dev/null").c_str()) == 0);
  }
  ::unsetenv("MOUE_TEST_RUN");
  CHECK(differing_files(run.out("whole") / "step-000100", run.out("parts") / "step-000100") ==
        kNone);
  CHECK(journal_lines(run.out("whole")) == journal_lines(run.out("parts")));
}

TEST_CASE("leaving out running shares or the slots that stay is noticed", "[resume]") {
  PicoRun run;
  TrainOptions options = through_all_stages(run.options, "float32");
  options.steps = 40;
  const std::string which = GENERATE("nothing", "shares", "kept");
  train_model(run.model, run.out("whole"), options);
  options.stop_after = which == "kept" ? 27 : 20;  // relocking: 24 to 32
  train_model(run.model, run.out("half"), options);
  const fs::path step = run.out("half") / fmt::format("step-{:06}", options.stop_after);
  change_f64(step / "training" / "state.safetensors",
             [&](const std::string& name, std::vector<double>& values) {
               // As if other slots had been used, or others had been chosen to stay.
               if (name.starts_with(which)) std::reverse(values.begin() + 5, values.end());
             });
  renew_manifest(step);
  options.stop_after = 0;
  options.resume = true;
  train_model(run.model, run.out("half"), options);
  const auto files =
      differing_files(run.out("whole") / "step-000040", run.out("half") / "step-000040");
  CHECK(has_weights(files) == (which != "nothing"));
}

TEST_CASE("leaving out the loss window is noticed", "[resume]") {
  Stopped stopped;
  const auto window = GENERATE("losses", "gradient_norms");
  const fs::path file = stopped.step / "training" / "state.json";
  auto json = nlohmann::ordered_json::parse(file_text(file));
  REQUIRE(json[window].size() >= 5);
  json[window] = nlohmann::ordered_json::array();
  write_text(file, json.dump(1) + "\n");
  const auto files = stopped.resumed();
  CHECK(files.size() == 2);  // state.json, and the manifest that lists it
  const bool shown = journal_lines(stopped.whole) != journal_lines(stopped.half);
  CHECK(shown == (std::string(window) == "losses"));
}

TEST_CASE("nothing left out: the control of the tests below", "[resume]") {
  Stopped stopped(GENERATE("float32", "bfloat16"));
  CHECK(stopped.resumed() == kNone);
}

TEST_CASE("leaving out the moments is noticed", "[resume]") {
  Stopped stopped;
  const std::string which = GENERATE("first", "second");
  change_tensors(stopped.step / "training" / (which + "_moment-00001-of-00001.safetensors"), zero);
  CHECK(has_weights(stopped.resumed()));
}

TEST_CASE("leaving out the data position is noticed", "[resume]") {
  Stopped stopped;
  replace_text(stopped.step / "training" / "state.json", "\"data_step\": 10", "\"data_step\": 0");
  CHECK(has_weights(stopped.resumed()));
}

TEST_CASE("leaving out the pool bias is noticed", "[resume]") {
  Stopped stopped;
  change_tensors(stopped.step / "model-moue.safetensors",
                 [](const std::string& name, auto& values) {
                   if (name == names::kPoolBias) zero(name, values);
                 });
  CHECK(has_weights(stopped.resumed()));
}

TEST_CASE("another place in the schedule is noticed", "[resume]") {
  Stopped stopped;
  stopped.run.options.open.until = 0.95;
  replace_text(stopped.step / "training" / "state.json", "\"open.until\": \"0.7\"",
               "\"open.until\": \"0.95\"");
  CHECK(has_weights(stopped.resumed()));
}

TEST_CASE("leaving out the previous counts is noticed", "[resume]") {
  Stopped stopped;
  const fs::path file = stopped.step / "training" / "state.safetensors";
  const SafetensorsFile old(file);
  const std::vector<std::byte> updates = old.read(old.at("updates"));
  const TensorView view{"updates", Dtype::I64, old.at("updates").shape, updates};
  fs::remove(file);
  write_safetensors(file, std::span(&view, 1));
  CHECK(has_weights(stopped.resumed()));
}

TEST_CASE("a step that was changed is not resumed", "[resume]") {
  Stopped stopped;
  TrainOptions options = stopped.run.options;
  options.resume = true;
  change_tensors(stopped.step / "training" / "first_moment-00001-of-00001.safetensors", zero);
  const std::string message =
      error_of([&] { train_model(stopped.run.model, stopped.half, options); });
  CHECK_THAT(message, Catch::Contains("is not as it was written: "));
  CHECK_THAT(message, Catch::Contains("training/first_moment-00001-of-00001.safetensors"));
}

TEST_CASE("other options are refused by name, all at once", "[resume]") {
  Stopped stopped;
  TrainOptions options = stopped.run.options;
  options.resume = true;
  options.lr = 1e-3;
  options.open.schedule = "psr";
  options.eval_every = 7;  // does not change the numbers
  const std::string message =
      error_of([&] { train_model(stopped.run.model, stopped.half, options); });
  CHECK_THAT(message, Catch::Contains("lr is 0.001, the run began with 0.005"));
  CHECK_THAT(message, Catch::Contains("open.schedule is psr, the run began with distance"));
  CHECK_THAT(message, !Catch::Contains("eval_every"));

  TrainOptions other_tokens = stopped.run.options;
  other_tokens.resume = true;
  other_tokens.tokens = stopped.run.options.held_out;
  CHECK_THAT(error_of([&] { train_model(stopped.run.model, stopped.half, other_tokens); }),
             Catch::Contains("tokens is 400 tokens that begin with"));
}

TEST_CASE("a bfloat16 source resumes from its float32 masters", "[resume]") {
  PicoRun run;
  TrainOptions options = run.options;
  options.control = true;
  options.steps = 4;
  options.batch = 2;
  options.calibrate.tokens = 0;
  const fs::path source = "examples/tiny-mixtral";
  train_model(source, run.out("whole"), options);
  options.stop_after = 2;
  train_model(source, run.out("half"), options);
  fs::copy(run.out("half"), run.out("rounded"), fs::copy_options::recursive);
  options.resume = true;
  train_model(source, run.out("half"), options);
  CHECK(differing_files(run.out("whole") / "step-000004", run.out("half") / "step-000004") ==
        kNone);

  // Masters rounded to what the bfloat16 model holds are not the masters.
  const fs::path training = run.out("rounded") / "step-000002" / "training";
  change_tensors(training / "master-00001-of-00001.safetensors", [](const auto&, auto& values) {
    for (float& value : values) value = static_cast<float>(c10::BFloat16(value));
  });
  renew_manifest(training.parent_path());
  train_model(source, run.out("rounded"), options);
  CHECK(has_weights(
      differing_files(run.out("whole") / "step-000004", run.out("rounded") / "step-000004")));
}

}  // namespace moue
