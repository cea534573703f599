// The program's verbs that run the model, from outside: a whole recipe, a stop and its
// continuation.
#include "support/torch_test.h"

#include <nlohmann/json.hpp>

#include "support/program.h"

using namespace moue::test;

TEST_CASE("the pico recipe runs from plan to a validated step", "[unit][cli]") {
  const ScratchDir folder;
  const auto at = [&](const char* name) { return (folder / name).string(); };
  const std::string recipe = " --json --recipe " + pico_recipe(folder);
  for (const std::string verb :
       {"inspect", "plan", "measure", "convert", "validate", "train", "train --control"}) {
    const Outcome outcome = run(verb + recipe);
    INFO(verb << ": " << outcome.err);
    REQUIRE(outcome.code == 0);
    CHECK(nlohmann::json::parse(outcome.out)["passed"] == true);
    CHECK(outcome.err.empty() == (verb == "inspect"));
  }
  for (const char* name :
       {"plan.json", "plan.svg", "statistics.safetensors", "model/config.json", "train/latest",
        "control/latest", "train/recipe.toml", "recipe.toml", "report.json", "report.html",
        "train/run.json", "train/tensorboard", "train/report.html", "control/report.json"}) {
    INFO(name);
    CHECK(fs::exists(at(name)));
  }
  // The MoUE's page was written before there was a control.
  CHECK_FALSE(has(file_text(at("train/report.json")), "held_out_difference"));
  const Outcome report = run("train --json --report " + at("train"));
  CHECK(report.code == 0);
  CHECK(report.err.empty());
  CHECK(report.out == file_text(at("train/report.json")));
  CHECK(has(report.out, "held_out_difference"));
  const Outcome refused = run("train --json --report " + at("model"));
  CHECK(refused.code == 2);
  CHECK(has(refused.err, "model has no train.jsonl, wanted the directory that moue train wrote"));
}

TEST_CASE("a stopped training keeps its state, ends with exit code 4 and goes on", "[unit][cli]") {
  const ScratchDir folder;
  const auto at = [&](const char* name) { return (folder / name).string(); };
  const std::string recipe = " --recipe " + pico_recipe(folder);
  REQUIRE(run("convert" + recipe).code == 0);
  const std::string train = "train --save_every 20 --eval_every 0 --calibrate.tokens 0" + recipe;
  // The signal is sent once steps are being made: before that there is nothing to keep.
  const std::string stop =
      "sh -c '" + program() + " " + train + " --steps 100000 2> /dev/null & child=$!; " +
      "for i in $(seq 3000); do [ \"$(cat " + at("train/train.jsonl") +
      " 2> /dev/null | wc -l)\" -gt 6 ] && break; sleep 0.1; done; kill -TERM $child; " +
      "wait $child'";
  CHECK(WEXITSTATUS(std::system((stop + " > /dev/null 2>&1").c_str())) == 4);
  REQUIRE(fs::exists(at("train/latest")));
  const int done = std::stoi(file_text(at("train/latest")).substr(5));
  CHECK(done > 3);
  const Outcome resumed =
      run(train + " --resume --json --steps 100000 --stop_after " + std::to_string(done + 2));
  INFO(resumed.err);
  CHECK(resumed.code == 0);
  CHECK(nlohmann::json::parse(resumed.out)["facts"]["steps"] == done + 2);
}
