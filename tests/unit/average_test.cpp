// Averaged weights: what they are, that they are kept, and that they change nothing.
#include "support/torch_test.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "support/torch_pico.h"
#include "train/average.h"
#include "train/loop.h"

namespace moue {
namespace {

using namespace test;
using Json = nlohmann::ordered_json;

const std::vector<std::string> kNone;

}  // namespace

TEST_CASE("an average of written-out numbers, exchanged and brought back", "[average]") {
  std::vector<Parameter> parameters(2);
  for (Parameter& parameter : parameters) {
    parameter.master = at::full({3}, 1.0, at::kFloat);
    parameter.value = parameter.master;
  }
  parameters[1].frozen = {{0, 3}};
  Average average(parameters, 0.75);
  CHECK_FALSE(average.tensors()[1].defined());
  for (const double master : {5.0, 3.0}) {
    parameters[0].master.fill_(master);
    average.update();
  }
  CHECK(average.tensors()[0][0].item<double>() == Approx(0.75 * (0.75 * 1 + 0.25 * 5) + 0.25 * 3));
  const at::Tensor before = average.tensors()[0].clone();
  average.swap();
  CHECK(parameters[0].master.equal(before));
  CHECK(average.tensors()[0][0].item<double>() == 3.0);
  average.swap();
  CHECK(parameters[0].master[0].item<double>() == 3.0);
  CHECK(average.tensors()[0].equal(before));
}

TEST_CASE("averaging changes no weight, is evaluated, saved and resumed", "[average][resume]") {
  PicoRun run;
  run.options.dtype = GENERATE("float32", "bfloat16");
  train_model(run.model, run.out("plain"), run.options);
  run.options.ema = 0.9;
  train_model(run.model, run.out("whole"), run.options);
  const auto differing =
      differing_files(run.out("plain") / "step-000020", run.out("whole") / "step-000020");
  for (const std::string& file : differing) {
    const bool other = file.starts_with("training/average-") || file == "training/state.json" ||
                       file == "moue-manifest.json";
    CHECK((other ? "" : file) == "");
  }
  int64_t seen = 0;
  for (const std::string& line : journal_lines(run.out("whole"))) {
    const Json json = Json::parse(line);
    if (!json.contains("held_out_ema")) continue;
    ++seen;
    CHECK(std::isfinite(json["held_out_ema"].get<double>()));
    CHECK(json["held_out_ema"] != json["held_out"]);
  }
  CHECK(seen == 4);  // steps 5, 10, 15, 20

  run.options.stop_after = 10;
  train_model(run.model, run.out("half"), run.options);
  fs::copy(run.out("half"), run.out("lost"), fs::copy_options::recursive);
  run.options.stop_after = 0;
  run.options.resume = true;
  train_model(run.model, run.out("half"), run.options);
  CHECK(differing_files(run.out("whole") / "step-000020", run.out("half") / "step-000020") ==
        kNone);
  CHECK(journal_lines(run.out("whole")) == journal_lines(run.out("half")));

  const fs::path lost = run.out("lost") / "step-000010";
  change_tensors(lost / "training" / "average-00001-of-00001.safetensors",
                 [](const auto&, auto& values) { std::fill(values.begin(), values.end(), 0.0f); });
  renew_manifest(lost);
  train_model(run.model, run.out("lost"), run.options);
  CHECK(differing_files(run.out("whole") / "step-000020", run.out("lost") / "step-000020") !=
        kNone);
}

TEST_CASE("a deterministic run is the run again, and keeps its threads", "[average][resume]") {
  PicoRun run;
  run.options.deterministic = true;
  run.options.stop_after = 6;
  train_model(run.model, run.out("a"), run.options);
  train_model(run.model, run.out("b"), run.options);
  CHECK(differing_files(run.out("a") / "step-000006", run.out("b") / "step-000006") == kNone);
  run.options.resume = true;
  run.options.threads = 2;
  CHECK_THAT(error_of([&] { train_model(run.model, run.out("a"), run.options); }),
             Catch::Contains("threads is 2, the run began with 1"));
}

}  // namespace moue
