// Mixtral: every layer routed, top-k of a softmax and always renormalised, one window for all.
#include "moue/converter.h"

namespace moue::converters {

namespace {

ModelSpec spec(const Config& c) {
  ModelSpec s = common_spec(c, {.eps = 1e-5});
  s.expert_width = size(c, {"intermediate_size"});
  s.attention = grouped_attention(c, s);
  s.attention.bias = s.attention.output_bias = false;
  s.attention.window.assign(s.layers, sliding_window(c));
  s.rope = rope(c, 1e6, s.attention.head_width);
  return checked(c, s);
}

constexpr auto kExample = R"({"architectures": ["MixtralForCausalLM"], "vocab_size": 61,
  "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 6,
  "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 5, "num_experts_per_tok": 2,
  "hidden_act": "silu", "sliding_window": 9})";

}  // namespace

Family mixtral() {
  return {
      .architectures = {"MixtralForCausalLM"},
      .spec = spec,
      .tensors = joined({skeleton_rows(), rotary_rows(), attention_rows()}),
      .forms = {block_experts(), fused_experts(mlp_router_rows())},
      .example = kExample,
  };
}

}  // namespace moue::converters
