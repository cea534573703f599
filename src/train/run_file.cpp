// run.json and train.jsonl, read with checks.
#include "train/run_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/files.h"
#include "core/json.h"
#include "core/tree.h"
#include "moue/error.h"

namespace fs = std::filesystem;

namespace moue {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr int kDepth = 8;

// What is not finite was written as null.
double number(const Json& json) { return json.is_number() ? json.get<double>() : kNone; }

double number(const Json& line, const char* key) {
  const auto found = line.find(key);
  return found == line.end() ? kNone : number(*found);
}

std::vector<double> numbers(const Json& line, const char* key) {
  std::vector<double> values;
  const auto found = line.find(key);
  if (found == line.end() || !found->is_array()) return values;
  for (const Json& value : *found) values.push_back(number(value));
  return values;
}

double largest(const std::vector<double>& values) {
  return values.empty() ? kNone : *std::max_element(values.begin(), values.end());
}

StepLine step_line(const Json& line, int64_t step) {
  const auto skipped = line.find("skipped");
  return {.step = step,
          .skipped = skipped != line.end() && *skipped == true,
          .loss = number(line, "loss"),
          .mean_loss = number(line, "mean_loss"),
          .lr = number(line, "lr"),
          .grad_norm = number(line, "grad_norm"),
          .tokens_per_second = number(line, "tokens_per_second"),
          .foreign_share = number(line, "foreign_share"),
          .pool_max_vio = number(line, "pool_max_vio"),
          .worst_max_vio = largest(numbers(line, "max_vio")),
          .balance_pool = number(line, "balance_pool"),
          .balance_layer = number(line, "balance_layer"),
          .dead = number(line, "dead")};
}

RoutingLine routing_line(const Json& line, int64_t step) {
  return {.step = step,
          .max_vio = numbers(line, "max_vio"),
          .foreign = numbers(line, "foreign"),
          .entropy = numbers(line, "entropy"),
          .margin = numbers(line, "margin"),
          .bonus = numbers(line, "trajectory_bonus"),
          .spread = numbers(line, "logit_spread"),
          .reuse = numbers(line, "reuse"),
          .reuse_chance = numbers(line, "reuse_chance"),
          .distinct = number(line, "distinct"),
          .utilisation = number(line, "utilisation")};
}

// Counts that fit the pool; nothing where they do not.
std::optional<LoadLine> load_line(const Json& line, int64_t step, const RunFacts& facts) {
  LoadLine load{step, {}, numbers(line, "exposure")};
  const auto chosen = line.find("chosen");
  if (chosen == line.end() || !chosen->is_array() || chosen->size() != facts.slots.size() ||
      static_cast<int64_t>(load.exposure.size()) != facts.num_physical)
    return std::nullopt;
  for (const Json& row : *chosen) {
    std::vector<double>& counts = load.chosen.emplace_back();
    if (!row.is_array() || row.size() != facts.slots[load.chosen.size() - 1].size())
      return std::nullopt;
    for (const Json& count : row) counts.push_back(std::max(0.0, number(count)));
  }
  return load;
}

class Reader {
 public:
  explicit Reader(RunLog& log) : log_(log) {}

  void line(const Json& line) {
    const auto step = line.at("step").get<int64_t>();
    if (line.contains("held_out")) {
      log_.held_out.push_back({step, number(line, "held_out"),
                               number(line, "held_out_standard_error"),
                               number(line, "held_out_foreign_share"),
                               number(line, "held_out_all_open"), number(line, "held_out_ema")});
    }
    if (!line.contains("loss")) return;
    log_.steps.push_back(step_line(line, step));
    if (line.contains("entropy")) log_.routing.push_back(routing_line(line, step));
    if (!log_.facts || !line.contains("chosen")) return;
    auto load = load_line(line, step, *log_.facts);
    if (!log_.first_load) log_.first_load = load;
    log_.last_load = std::move(load);
  }

 private:
  RunLog& log_;
};

void read_lines(RunLog& log, const fs::path& file) {
  const std::string text = read_whole_file(file, "train", UINT64_MAX);
  Reader reader(log);
  int64_t count = 0;
  for (size_t begin = 0, end = 0; (end = text.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    ++count;
    try {
      reader.line(parse_json(std::string_view(text).substr(begin, end - begin), "", "", kDepth));
    } catch (const std::exception&) {
      fail("train", "{} line {} is no line that a run writes; is the file whole?", file.string(),
           count);
    }
  }
}

// Slots must be those of a pool: what is drawn from them is indexed by them.
void check_facts(const RunFacts& facts) {
  const int64_t P = facts.num_physical, N = facts.experts_per_layer;
  bool fine = P > 0 && N > 0 && facts.experts_per_token > 0 && !facts.slots.empty() &&
              P >= N * static_cast<int64_t>(facts.slots.size()) && facts.steps > 0;
  for (const std::vector<int32_t>& row : facts.slots) {
    fine &= static_cast<int64_t>(row.size()) >= N;
    for (const int32_t p : row) fine &= p >= 0 && p < P;
  }
  if (!fine) throw std::runtime_error("numbers that fit no pool");
}

RunFacts facts_of(const Json& json) {
  RunFacts facts;
  facts.model = json.at("model").get<std::string>();
  facts.control = json.at("control").get<bool>();
  facts.steps = json.at("steps").get<int64_t>();
  facts.tokens_per_step = json.at("tokens_per_step").get<int64_t>();
  facts.experts_per_layer = json.at("experts_per_layer").get<int64_t>();
  facts.experts_per_token = json.at("experts_per_token").get<int64_t>();
  facts.num_physical = json.at("num_physical").get<int64_t>();
  facts.slots = json.at("slots").get<Slots>();
  for (const Json& stage : json.at("stages")) {
    facts.stages.push_back({stage.at("stage").get<std::string>(), stage.at("from").get<int64_t>(),
                            stage.at("until").get<int64_t>()});
  }
  check_facts(facts);
  return facts;
}

}  // namespace

void write_run_facts(const fs::path& out, const RunFacts& facts) {
  Json stages = Json::array();
  for (const StagePlan& stage : facts.stages)
    stages.push_back({{"stage", stage.name}, {"from", stage.from}, {"until", stage.until}});
  const Json json = {{"model", facts.model},
                     {"control", facts.control},
                     {"steps", facts.steps},
                     {"tokens_per_step", facts.tokens_per_step},
                     {"experts_per_layer", facts.experts_per_layer},
                     {"experts_per_token", facts.experts_per_token},
                     {"num_physical", facts.num_physical},
                     {"stages", std::move(stages)},
                     {"slots", facts.slots}};
  write_file_whole(out / "run.json", json.dump() + "\n");
}

fs::path run_directory(const fs::path& directory) {
  const bool inside = !stands(directory / "train.jsonl") && stands(directory / "train/train.jsonl");
  return inside ? directory / "train" : directory;
}

RunLog read_run(const fs::path& directory) {
  RunLog log;
  log.directory = run_directory(directory);
  if (!stands(log.directory / "train.jsonl"))
    fail("train", "{} has no train.jsonl, wanted the directory that moue train wrote; see --out",
         log.directory.string());
  if (const fs::path file = log.directory / "run.json"; stands(file)) {
    const Json json = read_json(file, "train");
    try {
      log.facts = facts_of(json);
    } catch (const std::exception& error) {
      fail("train", "{} is not what a run writes ({}); remove it for a report without loads",
           file.string(), error.what());
    }
  }
  read_lines(log, log.directory / "train.jsonl");
  return log;
}

}  // namespace moue
