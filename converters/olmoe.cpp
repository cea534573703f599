// OLMoE: every layer routed, norms over the whole query and key, all three limited where the config
// says so.
#include "moue/converter.h"

namespace moue::converters {

namespace {

ModelSpec spec(const Config& c) {
  ModelSpec s = common_spec(c, {.eps = 1e-5, .aux_coefficient = 0.01});
  s.expert_width = size(c, {"intermediate_size"});
  s.router.renormalise = c.boolean("norm_topk_prob", false);
  s.router.gates_in_logits_dtype = true;
  s.attention = grouped_attention(c, s);
  s.attention.qk_norm = QkNorm::Whole;
  if (c.has("clip_qkv")) s.attention.clip = positive(c, {"clip_qkv"}, 0);
  s.rope = rope(c, 1e4, s.attention.head_width);
  return checked(c, s);
}

constexpr auto kExample = R"({"architectures": ["OlmoeForCausalLM"], "vocab_size": 61,
  "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 6,
  "num_key_value_heads": 2, "num_experts": 7, "num_experts_per_tok": 3, "hidden_act": "silu",
  "clip_qkv": 1.5})";

}  // namespace

Family olmoe() {
  return {
      .architectures = {"OlmoeForCausalLM"},
      .spec = spec,
      .tensors = joined({skeleton_rows(), rotary_rows(), attention_rows(), vector_norm_rows(),
                         mlp_router_rows()}),
      .forms = {mlp_experts(), fused_experts()},
      .example = kExample,
  };
}

}  // namespace moue::converters
