// DeepSeek-V2: latent attention, first layers dense, shared experts, a softmax over all experts of
// which the best groups are chosen from.
#include "moue/converter.h"

namespace moue::converters {

namespace {

void read_router(const Config& c, RouterSpec& r) {
  must_be(c, "scoring_func", "softmax");
  r.renormalise = false;  // transformers reads no norm_topk_prob here
  r.float32_logits = true;
  r.scale = c.real("routed_scaling_factor", 1.0);
  if (c.string("topk_method", "greedy") == "greedy") return;
  must_be(c, "topk_method", "group_limited_greedy");
  r.group_score = GroupScore::Best;
  read_groups(c, r);
}

ModelSpec spec(const Config& c) {
  must_be(c, "mlp_bias", false);
  ModelSpec s = common_spec(c, {.aux_coefficient = 0});
  read_first_dense(c, s);
  read_router(c, s.router);
  s.attention = latent_attention(c, s);
  s.rope = rope(c, 1e4, s.attention.latent.rope_width);
  s.rope.interleaved = true;
  s.attention.scale *= latent_scale(c, s.rope);
  return checked(c, s);
}

constexpr auto kExample = R"({"architectures": ["DeepseekV2ForCausalLM"], "vocab_size": 61,
  "hidden_size": 24, "intermediate_size": 56, "moe_intermediate_size": 20, "num_hidden_layers": 4,
  "num_attention_heads": 3, "q_lora_rank": 10, "kv_lora_rank": 14, "qk_nope_head_dim": 8,
  "qk_rope_head_dim": 4, "v_head_dim": 6, "n_routed_experts": 8, "n_shared_experts": 2,
  "num_experts_per_tok": 3, "first_k_dense_replace": 1, "topk_method": "group_limited_greedy",
  "n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.7, "hidden_act": "silu"})";

}  // namespace

Family deepseek_v2() {
  return {
      .architectures = {"DeepseekV2ForCausalLM"},
      .spec = spec,
      .tensors = joined(
          {skeleton_rows(), latent_rows(), dense_rows(), mlp_router_rows(), shared_expert_rows()}),
      .forms = {mlp_experts(), fused_experts()},
      .example = kExample,
  };
}

}  // namespace moue::converters
