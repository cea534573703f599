// Granite-MoE: top-k of the logits, softmax over the chosen; constants between the blocks.
#include "moue/converter.h"

namespace moue::converters {

namespace {

ModelSpec spec(const Config& c) {
  ModelSpec s = common_spec(c);
  s.expert_width = size(c, {"intermediate_size"});
  s.router.score = RouterScore::Chosen;
  s.router.gates_in_logits_dtype = true;
  s.attention = grouped_attention(c, s);
  s.attention.scale = c.real("attention_multiplier", 1.0);
  s.rope = rope(c, 1e4, s.attention.head_width);
  s.scales.embedding = c.real("embedding_multiplier", 1.0);
  s.scales.residual = c.real("residual_multiplier", 1.0);
  s.scales.logits = c.real("logits_scaling", 1.0);
  return checked(c, s);
}

constexpr auto kExample = R"({"architectures": ["GraniteMoeForCausalLM"], "vocab_size": 61,
  "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 6,
  "num_key_value_heads": 2, "num_local_experts": 5, "num_experts_per_tok": 2, "hidden_act": "silu",
  "embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.4,
  "attention_multiplier": 0.3, "tie_word_embeddings": true})";

}  // namespace

Family granitemoe() {
  using enum Role;
  const Form stacked = {
      "stacked",
      {
          {"model.layers.{L}.block_sparse_moe.router.layer.weight", Router, "E D", Layers::Moe},
          {"model.layers.{L}.block_sparse_moe.input_linear.weight", ExpertGateUp, "E 2*F D",
           Layers::Moe},
          {"model.layers.{L}.block_sparse_moe.output_linear.weight", ExpertDown, "E D F",
           Layers::Moe},
      }};
  const Form fused = {
      "fused",
      {
          {"model.layers.{L}.block_sparse_moe.router.weight", Router, "E D", Layers::Moe},
          {"model.layers.{L}.block_sparse_moe.experts.gate_up_proj", ExpertGateUp, "E 2*F D",
           Layers::Moe},
          {"model.layers.{L}.block_sparse_moe.experts.down_proj", ExpertDown, "E D F", Layers::Moe},
      }};
  return {
      .architectures = {"GraniteMoeForCausalLM"},
      .spec = spec,
      .tensors = joined({skeleton_rows(), rotary_rows(), attention_rows()}),
      .forms = {stacked, fused},
      .example = kExample,
  };
}

}  // namespace moue::converters
