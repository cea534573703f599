// What the files in converters/ share in reading config.json.
#include "core/text.h"
#include "moue/converter.h"
#include "moue/error.h"

#include <algorithm>
#include <cmath>

namespace moue::converters {

namespace {

constexpr int64_t kMaxSize = int64_t{1} << 24;
constexpr int64_t kMaxCount = 65536;  // layers; experts of a layer
constexpr int64_t kMaxPhysical = int64_t{1} << 24;

// The key under which the config has it.
std::string_view present(const Config& config, Config::Keys keys) {
  for (std::string_view key : keys) {
    if (config.has(key)) return key;
  }
  return *keys.begin();
}

int64_t within(const Config& config, Config::Keys keys, int64_t value, int64_t least,
               int64_t most) {
  if (value >= least && value <= most) return value;
  fail("family", "{}: {} is {}, wanted {} to {}", config.origin(), present(config, keys), value,
       least, most);
}

template <class Value>
void demand(const Config& config, std::string_view key, const Value& value, const Value& wanted) {
  if (value == wanted) return;
  fail("family", "{}: {} is {}, wanted {}; nothing else is computed here", config.origin(), key,
       value, wanted);
}

Activation activation(const Config& config) {
  for (std::string_view key : {"hidden_act", "activation_function", "ffn_config.ffn_act_fn.name"}) {
    const std::string name = config.string(key, "silu");
    if (name == "silu" || name == "swish") continue;
    fail("family", "{}: {} is '{}', wanted 'silu'; other activations are not computed here",
         config.origin(), key, printable(name));
  }
  return Activation::Silu;
}

}  // namespace

int64_t size(const Config& config, Config::Keys keys) {
  return within(config, keys, config.integer(keys), 1, kMaxSize);
}

int64_t size(const Config& config, Config::Keys keys, int64_t fallback) {
  return within(config, keys, config.integer(keys, fallback), 1, kMaxSize);
}

int64_t extra_layers(const Config& config, int64_t fallback) {
  const Config::Keys keys = {"num_nextn_predict_layers", "num_mtp_layers", "num_mtp_modules"};
  return within(config, keys, config.integer(keys, fallback), 0, kMaxCount);
}

void must_be(const Config& config, std::string_view key, const char* wanted) {
  demand(config, key, in_quotes(config.string(key, wanted)), in_quotes(wanted));
}

void must_be(const Config& config, std::string_view key, bool wanted) {
  demand(config, key, config.boolean(key, wanted), wanted);
}

void must_be(const Config& config, std::string_view key, double wanted) {
  demand(config, key, config.real(key, wanted), wanted);
}

double positive(const Config& config, Config::Keys keys, double fallback) {
  const double value = config.real(keys, fallback);
  if (value > 0) return value;
  fail("family", "{}: {} is {}, wanted more than 0", config.origin(), present(config, keys), value);
}

ModelSpec common_spec(const Config& config, const Assumed& assumed) {
  const Config::Keys layers = {"num_hidden_layers", "n_layers"};
  const Config::Keys experts = {"num_local_experts", "num_experts", "n_routed_experts",
                                "ffn_config.moe_num_experts"};
  ModelSpec s;
  s.vocabulary = size(config, {"vocab_size"});
  s.width = size(config, {"hidden_size", "d_model"});
  s.layers = within(config, layers, config.integer(layers), 1, kMaxCount);
  s.moe.assign(s.layers, true);
  s.experts = within(config, experts, config.integer(experts), 1, kMaxCount);
  s.experts_per_token =
      size(config, {"num_experts_per_tok", "experts_per_token", "ffn_config.moe_top_k"});
  s.tied_head = config.boolean("tie_word_embeddings", assumed.tied_head);
  s.norm.eps = config.real("rms_norm_eps", assumed.eps);
  if (!(s.norm.eps > 0 && s.norm.eps < 1))
    fail("family", "{}: rms_norm_eps is {}, wanted 0 to 1", config.origin(), s.norm.eps);
  s.activation = activation(config);
  s.router.aux_coefficient = config.real(
      {"router_aux_loss_coef", "aux_loss_coef", "aux_loss_alpha", "ffn_config.moe_loss_weight"},
      assumed.aux_coefficient);
  return s;
}

void read_first_dense(const Config& config, ModelSpec& spec) {
  const Config::Keys keys = {"first_k_dense_replace"};
  must_be(config, "moe_layer_freq", 1.0);
  const int64_t dense = within(config, keys, config.integer(keys, 0), 0, spec.layers);
  std::fill_n(spec.moe.begin(), dense, false);
  if (dense > 0) spec.dense_width = size(config, {"intermediate_size"});
  spec.expert_width = size(config, {"moe_intermediate_size"});
  const Config::Keys shared = {"n_shared_experts"};
  spec.shared_width =
      spec.expert_width * within(config, shared, config.integer(shared, 0), 0, kMaxCount);
}

void read_sparse_steps(const Config& config, ModelSpec& spec) {
  const int64_t step = size(config, {"decoder_sparse_step"}, 1);
  for (int64_t layer = 0; layer < spec.layers; ++layer) spec.moe[layer] = (layer + 1) % step == 0;
  for (const int64_t layer : config.integers("mlp_only_layers")) {
    if (layer >= 0 && layer < spec.layers) spec.moe[layer] = false;
  }
  if (spec.num_moe_layers() < spec.layers) spec.dense_width = size(config, {"intermediate_size"});
  spec.expert_width = size(config, {"moe_intermediate_size"});
}

void read_groups(const Config& config, RouterSpec& router) {
  const auto count = [&](const char* key, int64_t assumed) {
    return size(config, {key}, config.is_null(key) ? 1 : assumed);
  };
  router.groups = count("n_group", router.groups);
  router.kept_groups = count("topk_group", router.kept_groups);
}

void read_corrected(const Config& config, RouterSpec& router) {
  must_be(config, "scoring_func", "sigmoid");
  must_be(config, "topk_method", "noaux_tc");
  router.score = RouterScore::Sigmoid;
  router.correction = router.float32_logits = true;
  router.group_score = GroupScore::SumOfTwo;
  read_groups(config, router);
  router.renormalise = config.boolean("norm_topk_prob", true);
  router.norm_eps = router.renormalise ? 1e-20 : 0;
  router.scale = config.real("routed_scaling_factor", router.scale);
}

AttentionSpec grouped_attention(const Config& config, const ModelSpec& spec) {
  AttentionSpec a;
  a.heads = size(config, {"num_attention_heads", "n_heads"});
  a.kv_heads = size(config, {"num_key_value_heads", "attn_config.kv_n_heads"}, a.heads);
  a.head_width = size(config, {"head_dim"}, spec.width / a.heads);
  a.scale = 1 / std::sqrt(a.head_width);
  a.bias = a.output_bias = config.boolean("attention_bias", false);
  a.window.assign(spec.layers, 0);
  return a;
}

AttentionSpec latent_attention(const Config& config, const ModelSpec& spec) {
  AttentionSpec a;
  a.kinds.assign(spec.layers, AttentionKind::Latent);
  a.heads = a.kv_heads = size(config, {"num_attention_heads"});
  a.latent = {.query_rank = config.is_null("q_lora_rank") ? 0 : size(config, {"q_lora_rank"}, 1536),
              .rank = size(config, {"kv_lora_rank"}, 512),
              .plain_width = size(config, {"qk_nope_head_dim"}, 128),
              .rope_width = size(config, {"qk_rope_head_dim"}, 64),
              .value_width = size(config, {"v_head_dim"}, 128)};
  a.head_width = a.latent.plain_width + a.latent.rope_width;
  a.scale = 1 / std::sqrt(a.head_width);
  a.bias = a.output_bias = config.boolean("attention_bias", false);
  a.window.assign(spec.layers, 0);
  return a;
}

int64_t sliding_window(const Config& config) {
  return config.has("sliding_window") ? size(config, {"sliding_window"}) : 0;
}

std::vector<bool> layers_of_type(const Config& config, std::string_view type,
                                 std::vector<bool> assumed) {
  const std::vector<std::string> types = config.strings("layer_types");
  if (types.empty()) return assumed;
  if (types.size() != assumed.size()) {
    fail("family", "{}: layer_types has {} entries, wanted num_hidden_layers {}", config.origin(),
         types.size(), assumed.size());
  }
  for (size_t layer = 0; layer < types.size(); ++layer) {
    assumed[layer] = types[layer] == type;
    if (assumed[layer] || types[layer] == "full_attention") continue;
    fail("family", "{}: layer_types[{}] is '{}', wanted 'full_attention' or '{}'", config.origin(),
         layer, printable(types[layer]), type);
  }
  return assumed;
}

std::vector<int64_t> windows(const Config& config, int64_t window, std::vector<bool> assumed) {
  std::vector<int64_t> result;
  for (const bool slides : layers_of_type(config, "sliding_attention", std::move(assumed)))
    result.push_back(slides ? window : 0);
  return result;
}

ModelSpec checked(const Config& config, ModelSpec spec) {
  std::string faults;
  const auto demand = [&](bool holds, std::string text) {
    if (!holds) faults += (faults.empty() ? "" : "; ") + text;
  };
  const AttentionSpec& a = spec.attention;
  const RouterSpec& r = spec.router;
  demand(spec.experts_per_token <= spec.experts,
         fmt::format("experts per token are {}, wanted at most the {} experts",
                     spec.experts_per_token, spec.experts));
  demand(a.heads % a.kv_heads == 0,
         fmt::format("num_attention_heads is {}, wanted a multiple of num_key_value_heads {}",
                     a.heads, a.kv_heads));
  demand(spec.num_moe_layers() > 0,
         fmt::format("none of its {} layers is routed, wanted at least one", spec.layers));
  demand(spec.layers * spec.experts <= kMaxPhysical,
         fmt::format("{} layers of {} experts are {}, wanted at most {}", spec.layers, spec.experts,
                     spec.layers * spec.experts, kMaxPhysical));
  demand(r.aux_coefficient >= 0,
         fmt::format("router_aux_loss_coef is {}, wanted 0 or more", r.aux_coefficient));
  const int64_t members = spec.experts / r.groups;  // of a group
  demand(spec.experts % r.groups == 0,
         fmt::format("n_group is {}, wanted a divisor of the {} experts", r.groups, spec.experts));
  demand(r.groups == 1 || r.group_score == GroupScore::Best || members > 1,
         fmt::format("n_group is {}, wanted groups of two experts or more", r.groups));
  demand(r.kept_groups <= r.groups,
         fmt::format("topk_group is {}, wanted at most n_group {}", r.kept_groups, r.groups));
  demand(r.groups == 1 || r.kept_groups * members >= spec.experts_per_token,
         fmt::format("topk_group is {}, wanted groups that hold {} experts together", r.kept_groups,
                     spec.experts_per_token));
  demand(r.norm_power > 0 && r.norm_eps >= 0 && r.jitter >= 0,
         fmt::format("the router's norm is {} with eps {} and its jitter {}, wanted none below 0",
                     r.norm_power, r.norm_eps, r.jitter));
  if (!faults.empty()) fail("family", "{}: {}", config.origin(), faults);
  return spec;
}

}  // namespace moue::converters
