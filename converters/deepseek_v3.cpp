// DeepSeek-V3: as V2, but sigmoid scores and a correction that takes part in the choice alone;
// layers behind the last predict further tokens.
#include "moue/converter.h"

namespace moue::converters {

namespace {

ModelSpec spec(const Config& c) {
  ModelSpec s = common_spec(c, {.aux_coefficient = 0});
  read_first_dense(c, s);
  s.extra_layers = extra_layers(c, 1);
  s.router.scale = 2.5;
  s.router.groups = 8;
  s.router.kept_groups = 4;
  read_corrected(c, s.router);
  s.attention = latent_attention(c, s);
  s.rope = rope(c, 1e4, s.attention.latent.rope_width);
  s.rope.interleaved = c.boolean("rope_interleave", true);
  s.attention.scale *= latent_scale(c, s.rope);
  return checked(c, s);
}

constexpr auto kExample = R"({"architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 61,
  "hidden_size": 24, "intermediate_size": 56, "moe_intermediate_size": 20, "num_hidden_layers": 4,
  "num_attention_heads": 3, "q_lora_rank": 10, "kv_lora_rank": 14, "qk_nope_head_dim": 8,
  "qk_rope_head_dim": 4, "v_head_dim": 6, "n_routed_experts": 8, "n_shared_experts": 1,
  "num_experts_per_tok": 3, "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2,
  "num_nextn_predict_layers": 1, "hidden_act": "silu"})";

}  // namespace

Family deepseek_v3() {
  const Rows correction = {{"model.layers.{L}.mlp.gate.e_score_correction_bias",
                            Role::RouterCorrection, "E", Layers::Moe}};
  return {
      .architectures = {"DeepseekV3ForCausalLM"},
      .spec = spec,
      .tensors = joined({skeleton_rows(), latent_rows(), dense_rows(), mlp_router_rows(),
                         correction, shared_expert_rows()}),
      .forms = {mlp_experts(), fused_experts()},
      .example = kExample,
  };
}

}  // namespace moue::converters
