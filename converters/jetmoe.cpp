// JetMoE: query and output projections of the attention are routed experts too.
#include "moue/converter.h"

#include <cmath>

namespace moue::converters {

namespace {

AttentionSpec attention(const Config& c, const ModelSpec& s) {
  AttentionSpec a;
  a.kinds.assign(s.layers, AttentionKind::Experts);
  a.kv_heads = size(c, {"num_key_value_heads"});
  a.heads = a.kv_heads * s.experts_per_token;  // the config's own number is not read
  a.head_width = size(c, {"kv_channels", "head_dim"}, 128);
  a.scale = 1 / std::sqrt(a.head_width);
  a.window.assign(s.layers, 0);
  return a;
}

ModelSpec spec(const Config& c) {
  ModelSpec s = common_spec(c, {.aux_coefficient = 0.01, .tied_head = true});
  s.norm.final_eps = s.norm.eps;
  s.norm.eps = 1e-6;
  s.expert_width = size(c, {"intermediate_size"});
  s.mlp_bias = true;
  s.router.score = RouterScore::Chosen;
  s.router.gates_in_logits_dtype = true;
  s.attention = attention(c, s);
  s.rope = rope(c, 1e4, s.attention.head_width);
  return checked(c, s);
}

constexpr auto kExample = R"({"architectures": ["JetMoeForCausalLM"], "vocab_size": 61,
  "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_key_value_heads": 3,
  "kv_channels": 8, "num_local_experts": 5, "num_experts_per_tok": 2,
  "activation_function": "silu", "tie_word_embeddings": true})";

}  // namespace

Family jetmoe() {
  using enum Role;
  const Rows attention_experts = {
      {"model.layers.{L}.self_attention.experts.router.layer.weight", AttentionRouter, "E D",
       Layers::All},
      {"model.layers.{L}.self_attention.experts.input_linear.weight", AttentionExpertInput,
       "E G*A D", Layers::All},
      {"model.layers.{L}.self_attention.experts.output_linear.weight", AttentionExpertOutput,
       "E D G*A", Layers::All},
      {"model.layers.{L}.self_attention.experts.bias", AttentionExpertsBias, "D", Layers::All},
      {"model.layers.{L}.self_attention.kv_proj.weight", KeyValue, "2*G*A D", Layers::All},
      {"model.layers.{L}.mlp.bias", MlpBias, "D", Layers::Moe},
  };
  const Form stacked = {
      "stacked",
      {
          {"model.layers.{L}.mlp.router.layer.weight", Router, "E D", Layers::Moe},
          {"model.layers.{L}.mlp.input_linear.weight", ExpertGateUp, "E 2*F D", Layers::Moe},
          {"model.layers.{L}.mlp.output_linear.weight", ExpertDown, "E D F", Layers::Moe},
      }};
  return {
      .architectures = {"JetMoeForCausalLM"},
      .spec = spec,
      .tensors = joined({skeleton_rows(), attention_experts}),
      .forms = {stacked},
      .example = kExample,
  };
}

}  // namespace moue::converters
