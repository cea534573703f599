// plan.json: the plan as a reader can check it, read back strictly.
#include "core/files.h"
#include "core/json.h"
#include "core/text.h"
#include "moue/error.h"
#include "moue/plan.h"
#include "pool/block.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace moue {

namespace {

using Json = Config::Json;

constexpr int64_t kVersion = 1;
constexpr const char* kSimilarity = "similarity";
constexpr const char* kByHand = "by_hand";  // topology.name of slots that no parameters make
constexpr uint64_t kMostBytes = uint64_t{1} << 30;

// Objects and lists of lists over several lines, every other list on one: a slot list is a line.
void write_json(const Json& json, size_t indent, std::string& out) {
  const bool has_lists = json.is_array() && !json.empty() && json.front().is_array();
  if (json.empty() || !(json.is_object() || has_lists)) {
    out += json.dump(-1);
    return;
  }
  out += json.is_object() ? "{" : "[";
  bool is_first = true;
  for (const auto& item : json.items()) {
    out += (is_first ? "\n" : ",\n") + std::string(indent + 2, ' ');
    if (json.is_object()) out += Json(item.key()).dump() + ": ";
    write_json(item.value(), indent + 2, out);
    is_first = false;
  }
  out += "\n" + std::string(indent, ' ') + (json.is_object() ? "}" : "]");
}

void check_keys(const Config& file) {
  const std::vector<std::string> known = {"version", "fingerprint", "notes", "moue", "scores"};
  std::vector<std::string> faults;
  for (const auto& item : file.json().items()) {
    if (std::find(known.begin(), known.end(), item.key()) == known.end()) {
      faults.push_back("unknown key " + in_quotes(item.key()));
    }
  }
  for (const std::string& key : known) {
    if (key != "scores" && !file.has(key)) faults.push_back("no key " + in_quotes(key));
  }
  if (!faults.empty())
    fail("plan", "{}: {}; keys of a plan: {}", file.origin(), join_some(faults), join(known));
}

bool is_digest(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

Json json_of(const PlanScores& scores) {
  Json json;
  json["kind"] = scores.kind;
  json["inputs"] = scores.inputs;
  json["samples"] = scores.samples;
  json["layers"] = Json::array();
  for (const LayerScores& layer : scores.layers) {
    json["layers"].push_back({{"layer", layer.layer},
                              {"best", layer.best},
                              {"mean", layer.mean},
                              {"worst", layer.worst}});
  }
  return json;
}

PlanScores scores_of(const Config& block) {
  PlanScores scores{block.string("kind"), block.string("inputs"), block.integer("samples"), {}};
  const auto layers = block.json().find("layers");
  if (layers == block.json().end() || !layers->is_array())
    fail("plan", "{}: layers is no list", block.origin());
  for (const Json& item : *layers) {
    const Config layer(item, fmt::format("{}.layers[{}]", block.origin(), scores.layers.size()));
    scores.layers.push_back({layer.integer("layer"), layer.real("best", 0), layer.real("mean", 0),
                             layer.real("worst", 0)});
  }
  return scores;
}

// Scores are not kept, so their slots can only be looked at: no more than the window, near enough.
void check_scored_slots(const Pool& pool, const std::string& origin) {
  std::vector<std::string> faults;
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    const std::vector<int32_t>& slots = pool.slots[layer];
    const auto far = std::ranges::find_if(slots, [&](int32_t p) {
      return std::abs(pool.home[p].layer - layer) > pool.topology.reach;
    });
    if (far != slots.end()) {
      faults.push_back(
          fmt::format("layer {} lists expert {} of layer {}", layer, *far, pool.home[*far].layer));
    }
    if (static_cast<int64_t>(slots.size()) != pool.topology.window)
      faults.push_back(fmt::format("layer {} has {} slots", layer, slots.size()));
  }
  if (faults.empty()) return;
  fail("plan", "{}: topology similarity has window {} and reach {}: {}; name it '{}' if it is so",
       origin, pool.topology.window, pool.topology.reach, join_some(faults), kByHand);
}

// A plan's slots are what its topology makes, or are said to be made by hand.
void check_slots(const Pool& pool, const std::string& origin) {
  if (pool.topology.name == kByHand) return;
  if (pool.topology.name == kSimilarity) return check_scored_slots(pool, origin);
  const Slots made = make_slots(pool.topology);
  std::vector<std::string> layers;
  for (size_t layer = 0; layer < made.size(); ++layer) {
    if (made[layer] != pool.slots[layer]) layers.push_back(std::to_string(layer));
  }
  if (layers.empty()) return;
  fail("plan",
       "{}: the slots of {} ({}) are not those of its topology; name the topology '{}' if they are "
       "meant so",
       origin, counted(layers.size(), "layer"), join_some(layers), kByHand);
}

}  // namespace

void write_plan(const Plan& plan, const std::filesystem::path& file) {
  Json json;
  json["version"] = kVersion;
  json["fingerprint"] = plan.fingerprint;
  json["notes"] = plan.notes;
  json["moue"] = block_of(plan.pool);
  if (plan.scores) json["scores"] = json_of(*plan.scores);
  std::string text;
  write_json(json, 0, text);
  write_file_whole(file, text + "\n");
  write_file_whole(std::filesystem::path(file).replace_extension(".svg"), picture_of(plan));
}

Plan read_plan(const std::filesystem::path& path) {
  const Config file(read_json(path, "plan", kMostBytes), printable(path.string(), 400));
  check_keys(file);
  if (file.integer("version") != kVersion) {
    fail("plan", "{}: version is {}, wanted {}; was it written by a newer moue?", file.origin(),
         file.integer("version"), kVersion);
  }
  Plan plan;
  plan.fingerprint = file.string("fingerprint");
  if (!is_digest(plan.fingerprint)) {
    fail("plan", "{}: fingerprint is {}, wanted 64 hexadecimal digits", file.origin(),
         in_quotes(plan.fingerprint));
  }
  plan.notes = file.strings("notes");
  plan.pool = pool_of(file.json().at("moue"), file.origin());
  if (plan.pool.state != PoolState::Closed || plan.pool.calibrated) {
    fail("plan", "{}: state is {}{}, wanted closed: a plan is not a model", file.origin(),
         to_string(plan.pool.state), plan.pool.calibrated ? ", calibrated" : "");
  }
  check_slots(plan.pool, file.origin());
  if (file.has("scores")) {
    plan.scores = scores_of(Config(file.json().at("scores"), file.origin() + ": scores"));
  }
  return plan;
}

}  // namespace moue
