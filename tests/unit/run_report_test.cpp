// The report of a run from its files: numbers, pictures, another run beside it, what is refused.
#include "train/run_report.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "moue/error.h"
#include "moue/train.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

struct Shape {
  int64_t layers = 3, own = 2, slots = 4, steps = 40, physical = 6;
};

// A run of which all is known: loss 4 - step / 100 + shift, a skip at steps 7 (a spike) and 9 (not
// finite), held-out losses each 10 steps, loads at the first and the last step.
class MadeUpRun {
 public:
  explicit MadeUpRun(fs::path directory, double shift = 0, Shape shape = {})
      : directory_(std::move(directory)), shift_(shift), shape_(shape) {
    fs::create_directories(directory_);
    RunFacts facts{.model = "models/a <b>",
                   .control = shape.slots == shape.own,
                   .steps = shape.steps,
                   .tokens_per_step = 64,
                   .experts_per_layer = shape.own,
                   .experts_per_token = 1,
                   .num_physical = shape.physical,
                   .slots = {},
                   .stages = {{"warmup", 0, 4}, {"open", 4, 20}, {"full", 20, shape.steps}}};
    for (int64_t layer = 0; layer < shape.layers; ++layer) {
      std::vector<int32_t>& row = facts.slots.emplace_back();
      for (int64_t slot = 0; slot < shape.slots; ++slot)
        row.push_back(static_cast<int32_t>((layer * shape.own + slot) % shape.physical));
    }
    write_run_facts(directory_, facts);
    std::string text;
    for (int64_t step = 0; step <= shape.steps; ++step) {
      if (step > 0) text += line(step).dump() + "\n";
      if (step % 10 == 0) text += held_out(step).dump() + "\n";
    }
    write_text(directory_ / "train.jsonl", text);
  }

  double loss(int64_t step) const { return 4 - 0.01 * static_cast<double>(step) + shift_; }

  Json held_out(int64_t step) const {
    return {{"step", step},
            {"stage", "open"},
            {"held_out", loss(step) + 0.5},
            {"held_out_standard_error", 0.01},
            {"held_out_foreign_share", 0.25}};
  }

  Json line(int64_t step) const {
    Json line = {{"step", step},
                 {"stage", "open"},
                 {"loss", step == 9 ? Json() : Json(step == 7 ? 50.0 : loss(step))},
                 {"mean_loss", loss(step) + 1},
                 {"lr", 1e-3},
                 {"grad_norm", step == 9 ? Json() : Json(step == 7 ? 900.0 : 0.5)},
                 {"skipped", step == 7 || step == 9},
                 {"spike", step == 7},
                 {"tokens_per_second", 1000.0 + static_cast<double>(step % 3)},
                 {"balance_pool", 1.25},
                 {"balance_layer", 1.5},
                 {"foreign_share", 0.25},
                 {"max_vio", std::vector<double>(shape_.layers, 0.75)},
                 {"pool_max_vio", 0.5},
                 {"dead", 1}};
    if (step % 5 == 0) {
      const std::vector<double> each(shape_.layers, 0.5), between(shape_.layers - 1, 0.125);
      for (const char* key : {"foreign", "entropy", "margin", "logit_spread"}) line[key] = each;
      line["trajectory_bonus"] = std::vector<double>(shape_.layers, 0.125);
      line["reuse"] = between;
      line["reuse_chance"] = between;
      line["distinct"] = 0.875;
      line["utilisation"] = 1;
    }
    if (step == 1 || step == shape_.steps) {
      std::vector<std::vector<int64_t>> chosen(shape_.layers);
      for (auto& row : chosen) {
        for (int64_t slot = 0; slot < shape_.slots; ++slot)
          row.push_back(step == 1 ? (slot < shape_.own ? 32 : 0) : 8 + slot);
      }
      line["chosen"] = chosen;
      line["exposure"] = std::vector<double>(shape_.physical, 0.5);
    }
    return line;
  }

 private:
  fs::path directory_;
  double shift_;
  Shape shape_;
};

Json json_of(const fs::path& directory) {
  return Json::parse(file_text(directory / "report.json"));
}

std::string error_of(const fs::path& run, const fs::path& compare = "") {
  try {
    report_run(run, compare);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

}  // namespace

TEST_CASE("a report has the run's numbers", "[unit][train]") {
  const ScratchDir folder;
  const MadeUpRun run(folder / "run");
  const Report report = report_run(folder / "run", "");
  const Json json = json_of(folder / "run"), facts = json["facts"];
  CHECK(to_json(report) == file_text(folder / "run" / "report.json"));
  CHECK(facts["steps"] == 40);
  CHECK(facts["stage"] == "finished");
  CHECK(facts["tokens"] == 40 * 64);
  CHECK(facts["skipped"] == 2);
  CHECK(facts["held_out_first"] == Approx(4.5));
  CHECK(facts["held_out_last"] == Approx(run.loss(40) + 0.5));
  CHECK(facts["tokens_per_second"] == 1001.0);
  CHECK(facts["loss"] == Approx(run.loss(40) + 1));
  CHECK_FALSE(facts.contains("held_out_difference"));
  CHECK(report.passed());

  const Json tables = json["tables"];
  CHECK(tables["layers"]["rows"][1][5] == Approx(0.25));  // trajectory over spread
  CHECK(tables["layers"]["rows"][1][6] == 0.125);
  CHECK(tables["layers"]["rows"][2][6] == "");  // the last layer has no next
  // 8, 9, 10, 11 of 38 choices: slots 2 and 3 of layer 0 are layer 1's.
  CHECK(tables["uses"]["rows"][0][1] == Approx(17.0 / 38));
  CHECK(tables["uses"]["rows"][0][2] == Approx(21.0 / 38));
  CHECK(tables["uses"]["rows"][0][3] == 0.0);
  CHECK(tables["uses"]["rows"][2][1] == Approx(21.0 / 38));
  CHECK(tables["load_before"]["rows"][0] == Json({0, 0.5, 0.5, 0.0, 0.0}));
  // Expert 2: slot 2 of layer 0 and slot 0 of layer 1.
  CHECK(tables["exposure"]["rows"][2][1] == 0.5);
  CHECK(tables["exposure"]["rows"][2][2] == Approx((10.0 + 8.0) / 38));
  CHECK(tables["loss"]["rows"][4] == Json({"this run", 5, run.loss(5) + 1}));
  for (const Json& row : tables["gradient_norm"]["rows"]) {
    const bool skipped = row[1] == 7 || row[1] == 9;
    if (row[0] == "accepted steps") CHECK(row[2] == (skipped ? Json("nan") : Json(0.5)));
    if (row[0] == "skipped: a spike") CHECK(row == Json({"skipped: a spike", 7, 900.0}));
    if (row[0] == "skipped: not finite") CHECK(row == Json({"skipped: not finite", 9, 900.0}));
  }
}

TEST_CASE("the page shows every picture and loads nothing", "[unit][train]") {
  const ScratchDir folder;
  const MadeUpRun run(folder / "run");
  report_run(folder / "run", "");
  const std::string page = file_text(folder / "run" / "report.html");
  for (const char* title :
       {"Held-out loss", "Training loss", "Choices of foreign experts", "Who uses whom",
        "Load before: step 1", "Load after: step 40", "Exposure against load", "Gradient norm",
        "Throughput", "Experts kept from layer to layer", "What the trajectory state says",
        "Entropy of the routers", "Margin of the choice", "Experts in use", "Learning rate",
        "The two sums of the balance loss"}) {
    INFO(title);
    CHECK(count_of(page, ">" + std::string(title) + "<") >= 1);
  }
  CHECK(count_of(page, "skipped: a spike</text>") == 1);
  CHECK(count_of(page, "skipped: not finite</text>") == 1);
  CHECK(count_of(page, ">open</text>") > 3);  // stages are marked
  CHECK(count_of(page, "<script") == 0);
  CHECK(count_of(page, "models/a <b>") == 0);
  // Namespaces of SVG are names, not places.
  CHECK(count_of(page, "http") == count_of(page, "xmlns=\"http://www.w3.org/2000/svg\""));
  CHECK(count_of(page, "url(") + count_of(page, "@import") + count_of(page, " src=") == 0);
}

TEST_CASE("another run stands beside it", "[unit][train]") {
  const ScratchDir folder;
  const MadeUpRun run(folder / "out/train"), control(folder / "out/control", 0.25, {.slots = 2});
  // DIR may be the directory of both.
  report_run(folder / "out", folder / "out/control");
  const Json json = json_of(folder / "out/train");
  CHECK(json["facts"]["held_out_difference"] == Approx(-0.25));
  CHECK(json["tables"]["comparison"]["rows"][0] ==
        Json({"held-out loss at step 40, nats", run.loss(40) + 0.5, control.loss(40) + 0.5,
              run.loss(40) - control.loss(40)}));
  int64_t theirs = 0;
  for (const Json& row : json["tables"]["held_out"]["rows"]) theirs += row[0] == "control";
  CHECK(theirs == 5);
  // A control shares nothing.
  report_run(folder / "out/control", "");
  const std::string page = file_text(folder / "out/control/report.html");
  CHECK(count_of(page, "Load before: step 1") > 0);
  CHECK(count_of(page, "Who uses whom") == 0);
  CHECK(count_of(page, "foreign experts</text>") == 0);
}

TEST_CASE("a run in progress is shown as far as it is", "[unit][train]") {
  const ScratchDir folder;
  const MadeUpRun run(folder / "run");
  const fs::path file = folder / "run" / "train.jsonl";
  const std::string whole = file_text(file);
  const size_t end = whole.find("{\"step\":15");
  write_text(file, whole.substr(0, end + 30));  // a line that is being written
  report_run(folder / "run", "");
  CHECK(json_of(folder / "run")["facts"]["steps"] == 14);
  CHECK(json_of(folder / "run")["facts"]["stage"] == "open");
  // Before the first step.
  write_text(file, "");
  report_run(folder / "run", "");
  CHECK(json_of(folder / "run")["facts"]["stage"] == "before the first step");
  // Older runs say less of themselves.
  write_text(file, whole);
  fs::remove(folder / "run" / "run.json");
  const Report report = report_run(folder / "run", "");
  REQUIRE(report.warnings.size() == 1);
  CHECK_THAT(report.warnings[0], Catch::Contains("no run.json"));
  CHECK(count_of(file_text(folder / "run" / "report.html"), "Training loss") > 0);
}

TEST_CASE("what no run has written is refused by name", "[unit][train]") {
  const ScratchDir folder;
  const MadeUpRun run(folder / "run");
  const fs::path lines = folder / "run" / "train.jsonl", facts = folder / "run" / "run.json";
  CHECK_THAT(error_of(folder / "none"), Catch::Contains("none has no train.jsonl, wanted"));
  CHECK_THAT(error_of(folder / "run", folder / "gone"), Catch::Contains("gone has no train.jsonl"));
  const std::string whole = file_text(lines), good = file_text(facts);
  for (const char* line : {"x", "{}", "{\"step\": \"1\"}", "[1]", "{\"step\": 1, \"step\": 2}"}) {
    INFO(line);
    write_text(lines, whole + line + "\n");
    CHECK_THAT(error_of(folder / "run"),
               Catch::Contains("train.jsonl line 46 is no line that a run writes"));
  }
  write_text(lines, whole);
  for (const auto& [from, to] : {std::pair{"\"num_physical\":6", "\"num_physical\":5"},
                                 {"\"experts_per_layer\":2", "\"experts_per_layer\":0"},
                                 {"[[0,1,2,3]", "[[0,1,2,6]"},
                                 {"[[0,1,2,3]", "[[0,1,2,-1]"},
                                 {"[[0,1,2,3]", "[[0]"},
                                 {"\"stages\"", "\"stage\""}}) {
    std::string bad = good;
    REQUIRE(bad.find(from) != std::string::npos);
    write_text(facts, bad.replace(bad.find(from), std::string(from).size(), to));
    INFO(bad);
    CHECK_THAT(error_of(folder / "run"), Catch::Contains("run.json is not what a run writes"));
  }
  // Loads that do not fit the slots are no loads.
  write_text(facts, good);
  std::string other = whole;
  for (size_t at; (at = other.find("\"chosen\":[[")) != std::string::npos;)
    other.replace(at, 11, "\"chosen\": [[1,");
  write_text(lines, other);
  CHECK(error_of(folder / "run").empty());
  CHECK(count_of(file_text(folder / "run" / "report.html"), "Load before") == 0);
}

TEST_CASE("the page of a large run stays below a megabyte", "[unit][train]") {
  const ScratchDir folder;
  const MadeUpRun run(folder / "run", 0,
                      {.layers = 48, .own = 128, .slots = 384, .steps = 3000, .physical = 6144});
  report_run(folder / "run", folder / "run");
  CHECK(fs::file_size(folder / "run" / "report.html") < 1'000'000);
}
