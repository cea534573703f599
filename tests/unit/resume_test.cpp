// A run in two processes is the run in one, bit for bit; and what must be restored for that.
#include "support/torch_test.h"

#include <unistd.h>

#include <cstdlib>

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
  CHECK(journal_lines(stopped.whole).size() == 20 + 5);  // steps, held-out losses
  CHECK(file_text(stopped.half / "latest") == "step-000020\n");
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
