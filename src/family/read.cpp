// What the files in converters/ share in reading config.json.
#include "core/text.h"
#include "moue/error.h"
#include "moue/family.h"

namespace moue::converters {

namespace {

constexpr int64_t kMaxSize = int64_t{1} << 24;
constexpr int64_t kMaxCount = 65536;  // layers; experts of a layer
constexpr int64_t kMaxPhysical = int64_t{1} << 24;

int64_t within(const Config& config, Config::Keys keys, int64_t value, int64_t limit) {
  if (value >= 1 && value <= limit) return value;
  std::string_view present = *keys.begin();
  for (std::string_view key : keys) {
    if (!config.has(key)) continue;
    present = key;
    break;
  }
  fail("family", "{}: {} is {}, wanted 1 to {}", config.origin(), present, value, limit);
}

void only(const Config& config, std::string_view key, double wanted, std::string_view advice) {
  const double value = config.real(key, wanted);
  if (value != wanted) {
    fail("family", "{}: {} is {}, wanted {}; {}", config.origin(), key, value, wanted, advice);
  }
}

}  // namespace

int64_t size(const Config& config, Config::Keys keys) {
  return within(config, keys, config.integer(keys), kMaxSize);
}

int64_t size(const Config& config, Config::Keys keys, int64_t fallback) {
  return within(config, keys, config.integer(keys, fallback), kMaxSize);
}

int64_t layers(const Config& config) {
  const Config::Keys keys = {"num_hidden_layers"};
  return within(config, keys, config.integer(keys), kMaxCount);
}

int64_t experts(const Config& config) {
  const Config::Keys keys = {"num_local_experts", "num_experts", "n_routed_experts"};
  return within(config, keys, config.integer(keys), kMaxCount);
}

RopeSpec plain_rope(const Config& config, double default_theta, int64_t head_width) {
  for (std::string_view key : {"rope_parameters.rope_type", "rope_parameters.type",
                               "rope_scaling.rope_type", "rope_scaling.type"}) {
    const std::string type = config.string(key, "default");
    if (type == "default") continue;
    fail("family",
         "{}: {} is '{}', wanted 'default'; scaled rotary embeddings are not computed here",
         config.origin(), key, printable(type));
  }
  for (std::string_view key : {"rope_parameters.factor", "rope_scaling.factor"}) {
    only(config, key, 1, "scaled rotary embeddings are not computed here");
  }
  for (std::string_view key : {"partial_rotary_factor", "rope_parameters.partial_rotary_factor"}) {
    only(config, key, 1, "heads are rotated whole here");
  }
  const double theta = config.real({"rope_parameters.rope_theta", "rope_theta"}, default_theta);
  if (!(theta >= 1 && theta <= 1e12)) {
    fail("family", "{}: rope_theta is {}, wanted 1 to 1e12", config.origin(), theta);
  }
  return {.theta = theta, .width = head_width};
}

Activation activation(const Config& config) {
  const std::string name = config.string("hidden_act");
  if (name == "silu" || name == "swish") return Activation::Silu;
  fail("family", "{}: hidden_act is '{}', wanted 'silu'; other activations are not computed here",
       config.origin(), printable(name));
}

std::vector<int64_t> windows(const Config& config, int64_t layers, int64_t window) {
  std::vector<int64_t> result(layers, window);
  const std::vector<std::string> types = config.strings("layer_types");
  if (types.empty()) {
    const int64_t first = config.integer("max_window_layers", 0);
    if (window == 0 || first == 0) return result;
    fail("family",
         "{}: max_window_layers is {}, wanted none; releases of transformers disagree on which "
         "layers that means, say it "
         "with layer_types",
         config.origin(), first);
  }
  if (types.size() != result.size()) {
    fail("family", "{}: layer_types has {} entries, wanted num_hidden_layers {}", config.origin(),
         types.size(), layers);
  }
  for (size_t layer = 0; layer < types.size(); ++layer) {
    if (types[layer] == "full_attention") {
      result[layer] = 0;
    } else if (types[layer] != "sliding_attention") {
      fail("family", "{}: layer_types[{}] is '{}', wanted 'full_attention' or 'sliding_attention'",
           config.origin(), layer, printable(types[layer]));
    }
  }
  return result;
}

ModelSpec checked(const Config& config, ModelSpec spec) {
  std::string faults;
  const auto demand = [&](bool holds, std::string text) {
    if (!holds) faults += (faults.empty() ? "" : "; ") + text;
  };
  const AttentionSpec& a = spec.attention;
  demand(spec.experts_per_token <= spec.experts,
         fmt::format("experts per token are {}, wanted at most the {} experts",
                     spec.experts_per_token, spec.experts));
  demand(a.heads % a.kv_heads == 0,
         fmt::format("num_attention_heads is {}, wanted a multiple of num_key_value_heads {}",
                     a.heads, a.kv_heads));
  demand(a.head_width % 2 == 0,
         fmt::format("head_dim is {}, wanted an even number to rotate", a.head_width));
  demand(spec.num_moe_layers() > 0,
         fmt::format("none of its {} layers is routed, wanted at least one", spec.layers));
  demand(spec.num_moe_layers() * spec.experts <= kMaxPhysical,
         fmt::format("it has {} experts in all, wanted at most {}",
                     spec.num_moe_layers() * spec.experts, kMaxPhysical));
  demand(spec.norm.eps > 0 && spec.norm.eps < 1,
         fmt::format("rms_norm_eps is {}, wanted 0 to 1", spec.norm.eps));
  demand(spec.router.aux_coefficient >= 0,
         fmt::format("router_aux_loss_coef is {}, wanted 0 or more", spec.router.aux_coefficient));
  if (!faults.empty()) fail("family", "{}: {}", config.origin(), faults);
  return spec;
}

}  // namespace moue::converters
