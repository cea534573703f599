// The "moue" block of config.json: written, read strictly, put into a config and taken out.
#include "pool/block.h"

#include "core/text.h"
#include "moue/error.h"
#include "pool/faults.h"

#include <nlohmann/json.hpp>

namespace moue {

namespace {

using Json = Config::Json;

constexpr int64_t kVersion = 1;
constexpr const char* kArchitecture = "MoUEForCausalLM";

const std::vector<std::string>& block_keys() {
  static const std::vector<std::string> keys = {
      "version",    "base_model_type",   "base_architectures",   "mode",  "num_moe_layers",
      "moe_layers", "experts_per_layer", "num_physical_experts", "home",  "slots",
      "topology",   "state_dim",         "foreign_input",        "state", "calibrated"};
  return keys;
}

Json json_of(const Topology& topology) {
  Json json;
  json["name"] = topology.name;
  json["layers"] = topology.layers;
  json["experts"] = topology.experts;
  json["group"] = topology.group;
  json["shift"] = topology.shift;
  json["window"] = topology.window;
  json["stride"] = topology.stride;
  json["origin"] = topology.origin;
  json["boundary"] = to_string(topology.boundary);
  if (topology.ring > 0) json["ring"] = topology.ring;
  if (topology.reach > 0) json["reach"] = topology.reach;
  return json;
}

Topology topology_of(const Config& block) {
  Topology t;
  t.name = block.string("topology.name", "custom");
  t.layers = block.integer("topology.layers");
  t.experts = block.integer("topology.experts");
  t.group = block.integer("topology.group");
  t.shift = block.integer("topology.shift");
  t.window = block.integer("topology.window");
  t.stride = block.integer("topology.stride", 1);
  t.origin = block.integer("topology.origin");
  t.boundary = boundary_of(block.string("topology.boundary"));
  t.ring = block.integer("topology.ring", 0);
  t.reach = block.integer("topology.reach", 0);
  return t;
}

// A list of lists of numbers that fit 32 bits.
std::vector<std::vector<int32_t>> lists(const Config& block, const char* key) {
  const auto wrong = [&](const Json& seen, const std::string& where) {
    fail("pool", "{}: {}{} is {}, wanted {}", block.origin(), key, where,
         printable(seen.dump(), 40),
         where.empty() ? "a list of lists" : "a list of expert numbers");
  };
  const auto found = block.json().find(key);
  if (found == block.json().end()) fail("pool", "{}: no key '{}'", block.origin(), key);
  if (!found->is_array()) wrong(*found, "");
  std::vector<std::vector<int32_t>> result;
  for (const Json& list : *found) {
    const std::string where = fmt::format("[{}]", result.size());
    if (!list.is_array()) wrong(list, where);
    result.emplace_back();
    for (const Json& item : list) {
      const bool fits = item.is_number_integer() && item >= INT32_MIN && item <= INT32_MAX;
      if (!fits) wrong(item, where);
      result.back().push_back(item.get<int32_t>());
    }
  }
  return result;
}

std::vector<Home> homes(const Config& block) {
  std::vector<Home> result;
  for (const std::vector<int32_t>& pair : lists(block, "home")) {
    if (pair.size() != 2) {
      fail("pool", "{}: home[{}] has {} numbers, wanted [MoE layer, expert]", block.origin(),
           result.size(), pair.size());
    }
    result.push_back({pair[0], pair[1]});
  }
  return result;
}

void refuse_unknown_keys(const Config& block) {
  std::vector<std::string> unknown;
  for (const auto& item : block.json().items()) {
    const auto& keys = block_keys();
    if (std::find(keys.begin(), keys.end(), item.key()) == keys.end())
      unknown.push_back(printable(item.key()));
  }
  if (!unknown.empty()) {
    fail("pool", "{}: unknown keys: {}; keys of version {}: {}", block.origin(), join_some(unknown),
         kVersion, join(block_keys()));
  }
}

// Counts that must agree with each other, and the trajectory's size.
std::vector<std::string> count_faults(const Config& block, const Pool& pool) {
  std::vector<std::string> faults;
  const auto agree = [&](const char* key, int64_t wanted) {
    const int64_t seen = block.integer(key);
    if (seen != wanted) faults.push_back(fmt::format("{} is {}, wanted {}", key, seen, wanted));
  };
  agree("num_moe_layers", pool.num_moe_layers());
  agree("num_physical_experts", pool.num_physical());
  agree("topology.layers", pool.num_moe_layers());
  agree("topology.experts", pool.experts_per_layer);
  const int64_t ring = pool.mode == Mode::Expand ? pool.num_new() : 0;
  if (pool.topology.ring != ring) {
    faults.push_back(fmt::format("topology.ring is {}, wanted the number of new experts, {}",
                                 pool.topology.ring, ring));
  }
  const auto listed = static_cast<int64_t>(pool.moe_layers.size());
  if (listed != pool.num_moe_layers()) {
    faults.push_back(
        fmt::format("moe_layers names {} layers, wanted {}", listed, pool.num_moe_layers()));
  }
  for (size_t i = 0; i < pool.moe_layers.size(); ++i) {
    if (pool.moe_layers[i] >= 0 && (i == 0 || pool.moe_layers[i] > pool.moe_layers[i - 1]))
      continue;
    faults.push_back(
        fmt::format("moe_layers[{}] is {}, wanted layers in rising order", i, pool.moe_layers[i]));
  }
  if (pool.state_dim < 1 || pool.state_dim > kMaxStateDim) {
    faults.push_back(fmt::format("state_dim is {}, wanted 1 to {}", pool.state_dim, kMaxStateDim));
  }
  return faults;
}

}  // namespace

Json block_of(const Pool& pool) {
  Json json;
  json["version"] = kVersion;
  json["base_model_type"] = pool.base_model_type;
  json["base_architectures"] = pool.base_architectures;
  json["mode"] = to_string(pool.mode);
  json["num_moe_layers"] = pool.num_moe_layers();
  json["moe_layers"] = pool.moe_layers;
  json["experts_per_layer"] = pool.experts_per_layer;
  json["num_physical_experts"] = pool.num_physical();
  json["home"] = Json::array();
  for (const Home& home : pool.home) json["home"].push_back({home.layer, home.expert});
  json["slots"] = pool.slots;
  json["topology"] = json_of(pool.topology);
  json["state_dim"] = pool.state_dim;
  json["foreign_input"] = to_string(pool.foreign_input);
  json["state"] = to_string(pool.state);
  json["calibrated"] = pool.calibrated;
  return json;
}

Pool pool_of(const Json& json, const std::string& origin) {
  const Config block(json, origin + ": moue");
  const int64_t version = block.integer("version");
  if (version != kVersion) {
    fail("pool", "{}: version is {}, wanted {}; was it written by a newer moue?", block.origin(),
         version, kVersion);
  }
  refuse_unknown_keys(block);
  Pool pool;
  pool.mode = mode_of(block.string("mode"));
  pool.base_model_type = block.string("base_model_type");
  pool.base_architectures = block.strings("base_architectures");
  pool.moe_layers = block.integers("moe_layers");
  pool.experts_per_layer = block.integer("experts_per_layer");
  pool.home = homes(block);
  pool.slots = lists(block, "slots");
  pool.topology = topology_of(block);
  pool.state_dim = block.integer("state_dim");
  pool.foreign_input = foreign_input_of(block.string("foreign_input"));
  pool.state = pool_state(block.string("state"));
  pool.calibrated = block.boolean("calibrated", false);
  std::vector<std::string> faults = count_faults(block, pool);
  for (std::string& fault : pool_faults(pool, 1)) faults.push_back(std::move(fault));
  if (!faults.empty()) fail("pool", "{}: {}", block.origin(), join_some(faults));
  return pool;
}

bool is_moue(const Config& config) { return config.has("moue"); }

Pool read_pool(const Config& config) {
  if (!is_moue(config))
    fail("pool", "{} has no 'moue' block; is it a source model? convert it first", config.origin());
  return pool_of(config.json().at("moue"), config.origin());
}

Config with_pool(const Config& source, const Pool& pool) {
  Json json = source.json();
  json["architectures"] = {kArchitecture};
  json["model_type"] = "moue";
  json["moue"] = block_of(pool);
  return Config(std::move(json), source.origin());
}

Config without_pool(const Config& config) {
  const Pool pool = read_pool(config);
  Json json = config.json();
  json.erase("moue");
  json["architectures"] = pool.base_architectures;
  json["model_type"] = pool.base_model_type;
  if (pool.base_model_type.empty()) json.erase("model_type");
  return Config(std::move(json), config.origin());
}

}  // namespace moue
