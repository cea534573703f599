// GLM-4.5: grouped-query attention that rotates half of each head, DeepSeek-V3's rule of choice.
#include "moue/converter.h"

namespace moue::converters {

namespace {

ModelSpec spec(const Config& c) {
  ModelSpec s = common_spec(c, {.eps = 1e-5, .aux_coefficient = 0});
  read_first_dense(c, s);
  s.extra_layers = extra_layers(c, 1);
  read_corrected(c, s.router);
  s.attention = grouped_attention(c, s);
  s.attention.output_bias = false;
  if (c.boolean("use_qk_norm", false)) s.attention.qk_norm = QkNorm::PerHead;
  s.rope = partial_rope(c, 1e4, s.attention.head_width, 0.5);
  return checked(c, s);
}

constexpr auto kExample = R"({"architectures": ["Glm4MoeForCausalLM"], "vocab_size": 61,
  "hidden_size": 24, "intermediate_size": 56, "moe_intermediate_size": 20, "num_hidden_layers": 4,
  "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "n_routed_experts": 8,
  "n_shared_experts": 1, "num_experts_per_tok": 3, "first_k_dense_replace": 1, "n_group": 2,
  "topk_group": 1, "use_qk_norm": true, "attention_bias": true, "num_nextn_predict_layers": 1,
  "hidden_act": "silu"})";

}  // namespace

Family glm4_moe() {
  const Rows correction = {{"model.layers.{L}.mlp.gate.e_score_correction_bias",
                            Role::RouterCorrection, "E", Layers::Moe}};
  return {
      .architectures = {"Glm4MoeForCausalLM"},
      .spec = spec,
      .tensors = joined({skeleton_rows(), attention_rows(), head_norm_rows(), dense_rows(),
                         mlp_router_rows(), correction, shared_expert_rows()}),
      .forms = {mlp_experts(), fused_experts()},
      .example = kExample,
  };
}

}  // namespace moue::converters
