// Qwen3-MoE: norms on query and key heads, dense layers where the config says so, renormalised only
// if it says so.
#include "moue/converter.h"

namespace moue::converters {

namespace {

ModelSpec spec(const Config& c) {
  ModelSpec s = common_spec(c);
  read_sparse_steps(c, s);
  s.router.renormalise = c.boolean("norm_topk_prob", false);
  s.router.gates_in_logits_dtype = true;
  s.attention = grouped_attention(c, s);
  s.attention.qk_norm = QkNorm::PerHead;
  const bool slides = c.boolean("use_sliding_window", false);
  s.attention.window =
      windows(c, slides ? size(c, {"sliding_window"}, 4096) : 0, std::vector<bool>(s.layers, true));
  s.rope = rope(c, 1e4, s.attention.head_width);
  return checked(c, s);
}

constexpr auto kExample = R"({"architectures": ["Qwen3MoeForCausalLM"], "vocab_size": 61,
  "hidden_size": 24, "intermediate_size": 56, "moe_intermediate_size": 20, "num_hidden_layers": 4,
  "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "num_experts": 7,
  "num_experts_per_tok": 3, "decoder_sparse_step": 2, "hidden_act": "silu",
  "use_sliding_window": true, "sliding_window": 9})";

}  // namespace

Family qwen3_moe() {
  return {
      .architectures = {"Qwen3MoeForCausalLM"},
      .spec = spec,
      .tensors = joined({skeleton_rows(), rotary_rows(), attention_rows(), head_norm_rows(),
                         dense_rows(), mlp_router_rows()}),
      .forms = {mlp_experts(), fused_experts()},
      .example = kExample,
  };
}

}  // namespace moue::converters
