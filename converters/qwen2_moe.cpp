// Qwen2-MoE: a shared expert that each token takes as far as its own gate says, biased q, k, v.
#include "moue/converter.h"

namespace moue::converters {

namespace {

// Every second layer slides, those from max_window_layers on do not.
std::vector<bool> sliding_layers(const Config& c, int64_t layers) {
  const int64_t most = c.integer("max_window_layers", 28);
  std::vector<bool> sliding(layers);
  for (int64_t layer = 0; layer < layers; layer += 2) sliding[layer] = layer < most;
  return sliding;
}

ModelSpec spec(const Config& c) {
  ModelSpec s = common_spec(c);
  read_sparse_steps(c, s);
  s.shared_width = size(c, {"shared_expert_intermediate_size"}, 5632);
  s.shared_gate = true;
  s.router.renormalise = c.boolean("norm_topk_prob", false);
  s.router.gates_in_logits_dtype = true;
  s.attention = grouped_attention(c, s);
  s.attention.bias = c.boolean("qkv_bias", true);
  s.attention.output_bias = false;
  const bool slides = c.boolean("use_sliding_window", false);
  s.attention.window =
      windows(c, slides ? size(c, {"sliding_window"}, 4096) : 0, sliding_layers(c, s.layers));
  s.rope = rope(c, 1e4, s.attention.head_width);
  return checked(c, s);
}

constexpr auto kExample = R"({"architectures": ["Qwen2MoeForCausalLM"], "vocab_size": 61,
  "hidden_size": 24, "intermediate_size": 56, "moe_intermediate_size": 20,
  "shared_expert_intermediate_size": 28, "num_hidden_layers": 4, "num_attention_heads": 6,
  "num_key_value_heads": 2, "num_experts": 7, "num_experts_per_tok": 3, "mlp_only_layers": [1],
  "hidden_act": "silu", "use_sliding_window": true, "sliding_window": 9, "max_window_layers": 2})";

}  // namespace

Family qwen2_moe() {
  using enum Role;
  const Rows shared = {
      {"model.layers.{L}.mlp.shared_expert.gate_proj.weight", SharedGate, "S D", Layers::Moe},
      {"model.layers.{L}.mlp.shared_expert.up_proj.weight", SharedUp, "S D", Layers::Moe},
      {"model.layers.{L}.mlp.shared_expert.down_proj.weight", SharedDown, "D S", Layers::Moe},
      {"model.layers.{L}.mlp.shared_expert_gate.weight", SharedMix, "1 D", Layers::Moe},
  };
  return {
      .architectures = {"Qwen2MoeForCausalLM"},
      .spec = spec,
      .tensors = joined({skeleton_rows(), rotary_rows(), attention_rows(), dense_rows(),
                         mlp_router_rows(), shared}),
      .forms = {mlp_experts(), fused_experts()},
      .example = kExample,
  };
}

}  // namespace moue::converters
