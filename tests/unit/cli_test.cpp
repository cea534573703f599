// The program from outside: streams, exit codes, what it refuses, how fast it starts.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <nlohmann/json.hpp>

#include "support/program.h"

using namespace moue::test;

namespace {

const char* kMixtral = "tests/golden/families/mixtral";
const char* kTokens = "tests/golden/tokens/pico.u16";
const char* kOther = "tests/golden/families/mixtral_sliding_tied";

}  // namespace

TEST_CASE("help and version are results", "[unit][cli]") {
  const Outcome help = run("--help");
  CHECK(help.code == 0);
  CHECK(has(help.out, "validate"));
  CHECK(help.err.empty());
  CHECK(run("train --help").code == 0);
  CHECK(has(run("--version").out, "moue "));
}

TEST_CASE("an error is one line on stderr and exit code 2", "[unit][cli]") {
  for (const char* words : {"", "inspekt x", "inspect", "plan x --grup 2", "inspect /nowhere",
                            "plan /tmp --recipe /nowhere"}) {
    INFO(words);
    const Outcome outcome = run(words);
    CHECK(outcome.code == 2);
    CHECK(outcome.out.empty());
    CHECK(outcome.err.starts_with("["));
    CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
  }
}

TEST_CASE("with --json an error is an object on stdout too", "[unit][cli]") {
  const Outcome outcome = run("inspect /nowhere --json");
  CHECK(outcome.code == 2);
  const auto object = nlohmann::json::parse(outcome.out);
  CHECK(object["error"]["stage"] == "checkpoint");
  CHECK(has(object["error"]["message"], "/nowhere"));
  CHECK(object["error"]["exit_code"] == 2);
  CHECK(nlohmann::json::parse(run("plan --grup 2 --json").out)["error"]["stage"] == "recipe");
}

TEST_CASE("inspect answers in text and in JSON", "[unit][cli]") {
  const Outcome text = run(std::string("inspect ") + kMixtral);
  CHECK(text.code == 0);
  CHECK(has(text.out, "inspect: "));
  CHECK(has(text.out, "mixtral"));
  CHECK(text.err.empty());
  const auto object = nlohmann::json::parse(run(std::string("inspect --json ") + kMixtral).out);
  CHECK(object["verb"] == "inspect");
  CHECK(object["passed"] == true);
}

TEST_CASE("inspect --families needs no model", "[unit][cli]") {
  const Outcome text = run("inspect --families");
  CHECK(text.code == 0);
  CHECK(has(text.out, "DeepseekV3ForCausalLM"));
  CHECK(text.err.empty());
  const auto object = nlohmann::json::parse(run("inspect --families --json").out);
  CHECK(object["tables"].size() == 1);
  const Outcome with = run(std::string("inspect --families ") + kMixtral);
  CHECK(with.code == 0);
  CHECK(has(with.err, "--families reads no model"));
  CHECK(run("plan --families").code == 2);
  CHECK(run("--families_reference").out == file_text("docs/families.md"));
}

TEST_CASE("a full disk behind stdout is an error", "[unit][cli]") {
  const std::string command = program() + " inspect " + kMixtral + " > /dev/full 2> /dev/null";
  CHECK(WEXITSTATUS(std::system(command.c_str())) == 2);
}

TEST_CASE("plan writes into the run's directory once and replaces what is named", "[unit][cli]") {
  const ScratchDir folder;
  const auto at = [&](const char* name) { return (folder / name).string(); };
  std::ofstream(at("a.toml")) << "source = '" << kMixtral << "'\nout = '" << at("run") << "'\n";
  const std::string plan = "plan --recipe " + at("a.toml");
  const Outcome first = run(plan);
  CHECK(first.code == 0);
  CHECK(has(first.err, "topology = \"half_staggered\""));
  CHECK(fs::exists(at("run/plan.json")));
  CHECK(fs::exists(at("run/plan.svg")));
  CHECK(file_text(at("run/recipe.toml")).starts_with("# The last run's recipe"));
  const Outcome second = run(plan);
  CHECK(second.code == 2);
  CHECK(has(second.err, "plan.json exists; name it with --out to replace it"));
  CHECK(run(plan + " --topology vanilla --out " + at("run/plan.json")).code == 0);
  CHECK(has(file_text(at("run/recipe.toml")), "topology = \"vanilla\""));
  CHECK(run(plan + " --quiet --out " + at("run/plan.json")).err.empty());
}

TEST_CASE("a recipe of the user's own in the run's directory is left alone", "[unit][cli]") {
  const ScratchDir folder;
  const auto at = [&](const char* name) { return (folder / name).string(); };
  const std::string text =
      "source = '" + std::string(kMixtral) + "'\nout = '" + folder.path().string() + "'\n";
  std::ofstream(at("recipe.toml")) << text;
  CHECK(run("plan --recipe " + at("recipe.toml")).code == 0);
  CHECK(file_text(at("recipe.toml")) == text);
}

TEST_CASE("convert refuses what exists and a plan of another source", "[unit][cli]") {
  const ScratchDir folder;
  const auto at = [&](const char* name) { return (folder / name).string(); };
  const std::string convert = std::string("convert ") + kMixtral + " --out " + at("model");
  REQUIRE(run(std::string("plan ") + kOther + " --out " + at("other.json")).code == 0);
  const Outcome foreign = run(convert + " --plan " + at("other.json"));
  CHECK(foreign.code == 2);
  CHECK_FALSE(fs::exists(at("model")));
  CHECK(run(convert).code == 0);
  CHECK(fs::exists(at("model/config.json")));
  const auto written = fs::last_write_time(at("model/config.json"));
  const Outcome again = run(convert);
  CHECK(again.code == 2);
  CHECK(has(again.err, at("model")));
  CHECK(fs::last_write_time(at("model/config.json")) == written);
}

TEST_CASE("a validation that finds a difference ends with exit code 1", "[unit][cli]") {
  const ScratchDir folder;
  const auto at = [&](const char* name) { return (folder / name).string(); };
  const std::string model = at("model");
  REQUIRE(run(std::string("convert ") + kMixtral + " --out " + model).code == 0);
  const std::string validate =
      std::string("validate --only_bytes --json ") + kMixtral + " " + model;
  const Outcome same = run(validate + " --html " + at("page.html"));
  CHECK(same.code == 0);
  CHECK(nlohmann::json::parse(same.out)["passed"] == true);
  CHECK(file_text(at("page.html")).starts_with("<!DOCTYPE html>"));
  std::ofstream(model + "/generation_config.json", std::ios::app) << " ";
  const Outcome other = run(validate);
  CHECK(other.code == 1);
  CHECK(nlohmann::json::parse(other.out)["passed"] == false);
}

TEST_CASE("a verb that needs LibTorch says how to get it", "[unit][cli]") {
  // The library looks beside itself: a copy alone in a folder has no libmoue_torch.so.
  const ScratchDir folder;
  const auto at = [&](const char* name) { return (folder / name).string(); };
  fs::copy(fs::path(program()).parent_path() / "libmoue.so", folder.path());
  const std::string command = "LD_LIBRARY_PATH=" + folder.path().string() + " " + program() +
                              " measure " + kMixtral + " --tokens " + kTokens + " --out " +
                              at("x") + " 2> " + at("err");
  CHECK(WEXITSTATUS(std::system(command.c_str())) == 2);
  CHECK(has(file_text(at("err")),
            "[torch] this verb runs the model and needs " + at("libmoue_torch.so")));
  CHECK_FALSE(fs::exists(at("x")));
}

TEST_CASE("inspect of a small model starts at once", "[unit][cli][no_asan]") {
  double best = 1e9;
  for (int i = 0; i < 10; ++i) {
    const auto begun = std::chrono::steady_clock::now();
    REQUIRE(run(std::string("inspect ") + kMixtral).code == 0);
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
  }
  CHECK(best < 0.1);  // 0.01 s on an idle machine, the shell included
}
