// A model's first, last or middle layers as a model of their own.
#include "family/cut.h"

#include <nlohmann/json.hpp>

#include <algorithm>

#include "core/text.h"
#include "moue/error.h"

namespace moue {

namespace {

using Json = Config::Json;

// The layers of a model, and of the part that is kept.
struct Cut {
  int64_t layers = 0, first = 0, last = 0;
  int64_t kept() const { return last - first; }
  bool holds(int64_t layer) const { return first <= layer && layer < last; }
};

bool is_integer(const Json& json, const char* key) {
  return json.contains(key) && json.at(key).is_number_integer();
}

void cut_counts(Json& json, const Cut& cut) {
  for (const char* key : {"num_hidden_layers", "n_layers", "num_layers"}) {
    if (is_integer(json, key) && json[key] == cut.layers) json[key] = cut.kept();
  }
  for (const char* key : {"num_nextn_predict_layers", "num_mtp_layers", "num_mtp_modules"}) {
    if (is_integer(json, key)) json[key] = 0;
  }
  for (const char* key : {"first_k_dense_replace", "max_window_layers"}) {
    if (!is_integer(json, key)) continue;
    json[key] = std::max<int64_t>(json[key].get<int64_t>() - cut.first, 0);
  }
}

void cut_lists(Json& json, const Cut& cut) {
  for (const char* key :
       {"layer_types", "mlp_layer_types", "attn_type_list", "layers_block_type"}) {
    if (!json.contains(key) || !json[key].is_array()) continue;
    if (static_cast<int64_t>(json[key].size()) != cut.layers) continue;
    Json kept = Json::array();
    for (int64_t layer = cut.first; layer < cut.last; ++layer) kept.push_back(json[key][layer]);
    json[key] = std::move(kept);
  }
}

// Every n-th layer is routed, counted from the first: a cut elsewhere must name the dense ones.
void cut_steps(Json& json, const Cut& cut, const ModelSpec& spec) {
  if (!json.contains("decoder_sparse_step") && !json.contains("mlp_only_layers")) return;
  const int64_t step =
      is_integer(json, "decoder_sparse_step") ? json["decoder_sparse_step"].get<int64_t>() : 1;
  Json dense = Json::array();
  if (step > 1 && cut.first % step != 0) {
    json["decoder_sparse_step"] = 1;
    for (int64_t layer = cut.first; layer < cut.last; ++layer) {
      if (!spec.moe[layer]) dense.push_back(layer - cut.first);
    }
  } else if (json.contains("mlp_only_layers") && json["mlp_only_layers"].is_array()) {
    for (const Json& layer : json["mlp_only_layers"]) {
      if (layer.is_number_integer() && cut.holds(layer)) {
        dense.push_back(layer.get<int64_t>() - cut.first);
      }
    }
  }
  if (json.contains("mlp_only_layers") || !dense.empty())
    json["mlp_only_layers"] = std::move(dense);
}

// What kind of attention a layer has, in the words of layer_types.
const char* type_of(const ModelSpec& spec, int64_t layer) {
  if (spec.attention.kind(layer) == AttentionKind::Linear) return "linear_attention";
  const bool has_linear =
      std::ranges::find(spec.attention.kinds, AttentionKind::Linear) != spec.attention.kinds.end();
  return !has_linear && spec.attention.window[layer] > 0 ? "sliding_attention" : "full_attention";
}

// Layers that the new config describes otherwise than the old one.
std::vector<std::string> changed(const ModelSpec& was, const ModelSpec& is, const Cut& cut) {
  std::vector<std::string> result;
  for (int64_t layer = cut.first; layer < cut.last; ++layer) {
    const int64_t now = layer - cut.first;
    const bool same = was.moe[layer] == is.moe[now] &&
                      was.attention.window[layer] == is.attention.window[now] &&
                      was.attention.kind(layer) == is.attention.kind(now);
    if (!same) result.push_back(std::to_string(layer));
  }
  return result;
}

void require_routed(const ModelSpec& spec, const Cut& cut, const std::string& origin) {
  std::vector<std::string> routed;
  for (const int64_t layer : spec.moe_layers()) routed.push_back(std::to_string(layer));
  const bool has_one =
      std::ranges::any_of(spec.moe_layers(), [&](int64_t layer) { return cut.holds(layer); });
  if (has_one) return;
  fail("convert", "{}: none of layers {}:{} is routed, wanted at least one; routed are {}", origin,
       cut.first, cut.last, join_some(routed));
}

}  // namespace

Config cut_config(const Config& config, const Family& family, int64_t first, int64_t last) {
  const ModelSpec spec = family.spec(config);
  const Cut cut{spec.layers, first, last};
  require_routed(spec, cut, config.origin());
  Json json = config.json();
  cut_steps(json, cut, spec);
  cut_counts(json, cut);
  cut_lists(json, cut);
  Config result(json, config.origin());
  if (changed(spec, family.spec(result), cut).empty()) return result;
  // Where the kind of a layer follows from its number, the list says it instead.
  json["layer_types"] = Json::array();
  for (int64_t layer = first; layer < last; ++layer)
    json["layer_types"].push_back(type_of(spec, layer));
  result = Config(std::move(json), config.origin());
  const std::vector<std::string> others = changed(spec, family.spec(result), cut);
  if (others.empty()) return result;
  fail("convert",
       "{}: layers {} would be of another kind in a model of layers {}:{}; cut elsewhere",
       config.origin(), join_some(others), first, last);
}

std::string moved_name(std::string_view name, const Claim& claim, int64_t layer) {
  const size_t begin = claim.row->name.find("{L}");
  const size_t digits = std::to_string(claim.layer).size();
  return fmt::format("{}{}{}", name.substr(0, begin), layer, name.substr(begin + digits));
}

}  // namespace moue
