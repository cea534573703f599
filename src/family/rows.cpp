// Rows that many families have.
#include "moue/converter.h"

namespace moue::converters {

using enum Role;

Rows joined(std::initializer_list<Rows> parts) {
  Rows result;
  for (const Rows& part : parts) result.insert(result.end(), part.begin(), part.end());
  return result;
}

Rows skeleton_rows() {
  return {
      {"model.embed_tokens.weight", Embedding, "V D"},
      {"model.norm.weight", FinalNorm, "D"},
      {.name = "lm_head.weight", .role = OutputHead, .shape = "V D", .optional = true},
      {"model.layers.{L}.input_layernorm.weight", AttentionNorm, "D", Layers::All},
      {"model.layers.{L}.post_attention_layernorm.weight", MlpNorm, "D", Layers::All},
  };
}

Rows norm_bias_rows() {
  return {
      {"model.norm.bias", FinalNormBias, "D"},
      {"lm_head.bias", OutputHeadBias, "V"},
      {"model.layers.{L}.input_layernorm.bias", AttentionNormBias, "D", Layers::All},
      {"model.layers.{L}.post_attention_layernorm.bias", MlpNormBias, "D", Layers::All},
  };
}

Rows rotary_rows() {
  return {
      {.name = "model.rotary_emb.inv_freq", .role = Ignored, .shape = "A/2", .optional = true},
      {"model.layers.{L}.self_attn.rotary_emb.inv_freq", Ignored, "A/2", Layers::All, true},
  };
}

Rows attention_rows() {
  return {
      {"model.layers.{L}.self_attn.q_proj.weight", Query, "H*A D", Layers::All},
      {"model.layers.{L}.self_attn.q_proj.bias", QueryBias, "H*A", Layers::All},
      {"model.layers.{L}.self_attn.k_proj.weight", Key, "G*A D", Layers::All},
      {"model.layers.{L}.self_attn.k_proj.bias", KeyBias, "G*A", Layers::All},
      {"model.layers.{L}.self_attn.v_proj.weight", Value, "G*A D", Layers::All},
      {"model.layers.{L}.self_attn.v_proj.bias", ValueBias, "G*A", Layers::All},
      {"model.layers.{L}.self_attn.o_proj.weight", AttentionOutput, "D H*A", Layers::All},
      {"model.layers.{L}.self_attn.o_proj.bias", AttentionOutputBias, "D", Layers::All},
  };
}

Rows head_norm_rows() {
  return {
      {"model.layers.{L}.self_attn.q_norm.weight", QueryNorm, "A", Layers::All},
      {"model.layers.{L}.self_attn.k_norm.weight", KeyNorm, "A", Layers::All},
  };
}

Rows vector_norm_rows() {
  return {
      {"model.layers.{L}.self_attn.q_norm.weight", QueryNorm, "H*A", Layers::All},
      {"model.layers.{L}.self_attn.k_norm.weight", KeyNorm, "G*A", Layers::All},
  };
}

Rows latent_rows() {
  return {
      {"model.layers.{L}.self_attn.q_proj.weight", Query, "H*N+H*P D", Layers::All},
      {"model.layers.{L}.self_attn.q_a_proj.weight", QueryDown, "Q D", Layers::All},
      {"model.layers.{L}.self_attn.q_a_proj.bias", QueryDownBias, "Q", Layers::All},
      {"model.layers.{L}.self_attn.q_a_layernorm.weight", QueryDownNorm, "Q", Layers::All},
      {"model.layers.{L}.self_attn.q_b_proj.weight", QueryUp, "H*N+H*P Q", Layers::All},
      {"model.layers.{L}.self_attn.kv_a_proj_with_mqa.weight", KeyValueDown, "R+P D", Layers::All},
      {"model.layers.{L}.self_attn.kv_a_proj_with_mqa.bias", KeyValueDownBias, "R+P", Layers::All},
      {"model.layers.{L}.self_attn.kv_a_layernorm.weight", KeyValueDownNorm, "R", Layers::All},
      {"model.layers.{L}.self_attn.kv_b_proj.weight", KeyValueUp, "H*N+H*U R", Layers::All},
      {"model.layers.{L}.self_attn.o_proj.weight", AttentionOutput, "D H*U", Layers::All},
      {"model.layers.{L}.self_attn.o_proj.bias", AttentionOutputBias, "D", Layers::All},
      {"model.layers.{L}.self_attn.rotary_emb.inv_freq", Ignored, "P/2", Layers::All, true},
  };
}

Rows dense_rows() {
  return {
      {"model.layers.{L}.mlp.gate_proj.weight", DenseGate, "I D", Layers::Dense},
      {"model.layers.{L}.mlp.up_proj.weight", DenseUp, "I D", Layers::Dense},
      {"model.layers.{L}.mlp.down_proj.weight", DenseDown, "D I", Layers::Dense},
  };
}

Rows shared_expert_rows() {
  return {
      {"model.layers.{L}.mlp.shared_experts.gate_proj.weight", SharedGate, "S D", Layers::Moe},
      {"model.layers.{L}.mlp.shared_experts.up_proj.weight", SharedUp, "S D", Layers::Moe},
      {"model.layers.{L}.mlp.shared_experts.down_proj.weight", SharedDown, "D S", Layers::Moe},
  };
}

Rows mlp_router_rows() {
  return {{"model.layers.{L}.mlp.gate.weight", Router, "E D", Layers::Moe}};
}

Form block_experts(Rows more) {
  const Rows rows = {
      {"model.layers.{L}.block_sparse_moe.gate.weight", Router, "E D", Layers::Moe},
      {"model.layers.{L}.block_sparse_moe.experts.{E}.w1.weight", ExpertGate, "F D", Layers::Moe},
      {"model.layers.{L}.block_sparse_moe.experts.{E}.w3.weight", ExpertUp, "F D", Layers::Moe},
      {"model.layers.{L}.block_sparse_moe.experts.{E}.w2.weight", ExpertDown, "D F", Layers::Moe},
  };
  return {"per expert", joined({rows, more})};
}

Form mlp_experts(Rows more) {
  const Rows rows = {
      {"model.layers.{L}.mlp.experts.{E}.gate_proj.weight", ExpertGate, "F D", Layers::Moe},
      {"model.layers.{L}.mlp.experts.{E}.up_proj.weight", ExpertUp, "F D", Layers::Moe},
      {"model.layers.{L}.mlp.experts.{E}.down_proj.weight", ExpertDown, "D F", Layers::Moe},
  };
  return {"per expert", joined({rows, more})};
}

Form fused_experts(Rows more) {
  const Rows rows = {
      {"model.layers.{L}.mlp.experts.gate_up_proj", ExpertGateUp, "E 2*F D", Layers::Moe},
      {"model.layers.{L}.mlp.experts.down_proj", ExpertDown, "E D F", Layers::Moe},
  };
  return {"fused", joined({rows, more})};
}

}  // namespace moue::converters
