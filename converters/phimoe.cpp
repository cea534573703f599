// Phi-3.5-MoE: norms that subtract the mean, biases everywhere, two experts by SparseMixer.
#include "moue/converter.h"

namespace moue::converters {

namespace {

// Here longrope comes with its own factors for cosine and sine.
RopeSpec long_rope(const Config& c, int64_t head_width) {
  RopeSpec r = rope(c, 1e6, head_width);
  if (r.kind == RopeKind::Default) return r;
  for (std::string_view key : {"rope_scaling.rope_type", "rope_scaling.type",
                               "rope_parameters.rope_type", "rope_parameters.type"}) {
    if (r.kind != RopeKind::Long) must_be(c, key, "longrope");
  }
  r.attention_factor =
      positive(c, {"rope_scaling.short_mscale", "rope_parameters.short_mscale"}, 0);
  r.long_attention_factor =
      positive(c, {"rope_scaling.long_mscale", "rope_parameters.long_mscale"}, 0);
  return r;
}

ModelSpec spec(const Config& c) {
  must_be(c, "num_experts_per_tok", 2.0);
  ModelSpec s = common_spec(c, {.eps = 1e-5});
  s.expert_width = size(c, {"intermediate_size"});
  s.norm.kind = NormKind::Layer;
  s.norm.bias = true;
  s.head_bias = c.boolean("lm_head_bias", false);
  s.router.score = RouterScore::Sparse;
  s.router.renormalise = false;
  s.router.score_in_logits_dtype = true;
  s.router.jitter = c.real("router_jitter_noise", 0.01);
  s.attention = grouped_attention(c, s);
  s.attention.window.assign(s.layers, sliding_window(c));
  s.rope = long_rope(c, s.attention.head_width);
  return checked(c, s);
}

constexpr auto kExample = R"({"architectures": ["PhimoeForCausalLM"], "vocab_size": 61,
  "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 6,
  "num_key_value_heads": 2, "num_local_experts": 5, "num_experts_per_tok": 2, "hidden_act": "silu",
  "attention_bias": true, "lm_head_bias": true, "sliding_window": 9})";

}  // namespace

Family phimoe() {
  const Rows router = {{"model.layers.{L}.mlp.router.weight", Role::Router, "E D", Layers::Moe}};
  return {
      .architectures = {"PhimoeForCausalLM"},
      .spec = spec,
      .tensors = joined({skeleton_rows(), norm_bias_rows(), rotary_rows(), attention_rows()}),
      .forms = {block_experts(), fused_experts(router)},
      .example = kExample,
  };
}

}  // namespace moue::converters
