// MiniMax-Text-01: most layers attend linearly; the residual is taken behind the norm.
#include "moue/converter.h"

namespace moue::converters {

namespace {

std::vector<AttentionKind> kinds(const Config& c, int64_t layers) {
  std::vector<bool> linear(layers);
  for (int64_t layer = 1; layer < layers; layer += 2) linear[layer] = true;
  std::vector<AttentionKind> result;
  for (const bool is_linear : layers_of_type(c, "linear_attention", linear))
    result.push_back(is_linear ? AttentionKind::Linear : AttentionKind::Grouped);
  return result;
}

ScaleSpec scales(const Config& c) {
  const auto factor = [&](std::string_view key) { return c.real(key, 1.0); };
  return {.after_norm = true,
          .full_alpha = factor("full_attn_alpha_factor"),
          .full_beta = factor("full_attn_beta_factor"),
          .linear_alpha = factor("linear_attn_alpha_factor"),
          .linear_beta = factor("linear_attn_beta_factor"),
          .mlp_alpha = factor("mlp_alpha_factor"),
          .mlp_beta = factor("mlp_beta_factor")};
}

ModelSpec spec(const Config& c) {
  ModelSpec s = common_spec(c, {.eps = 1e-5});
  s.expert_width = size(c, {"intermediate_size"});
  s.attention = grouped_attention(c, s);
  s.attention.bias = s.attention.output_bias = false;
  s.attention.kinds = kinds(c, s.layers);
  s.attention.block = size(c, {"block_size"}, 256);
  s.attention.window.assign(s.layers, sliding_window(c));
  s.rope = partial_rope(c, 1e6, s.attention.head_width);
  s.scales = scales(c);
  return checked(c, s);
}

constexpr auto kExample = R"({"architectures": ["MiniMaxForCausalLM"], "vocab_size": 61,
  "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 4, "num_attention_heads": 6,
  "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 7, "num_experts_per_tok": 2,
  "block_size": 5, "hidden_act": "silu", "layer_types":
  ["linear_attention", "full_attention", "linear_attention", "linear_attention"]})";

}  // namespace

Family minimax() {
  using enum Role;
  Rows softmax = attention_rows();
  for (Row& row : softmax) row.layers = Layers::Softmax;
  const Rows linear = {
      {"model.layers.{L}.self_attn.qkv_proj.weight", LinearInput, "3*H*A D", Layers::Linear},
      {"model.layers.{L}.self_attn.norm.weight", LinearNorm, "H*A", Layers::Linear},
      {"model.layers.{L}.self_attn.output_gate.weight", LinearGate, "H*A D", Layers::Linear},
      {"model.layers.{L}.self_attn.out_proj.weight", LinearOutput, "D H*A", Layers::Linear},
      {"model.layers.{L}.self_attn.slope_rate", Ignored, "H 1 1", Layers::Linear, true},
      {"model.layers.{L}.self_attn.query_decay", Ignored, "H B 1", Layers::Linear, true},
      {"model.layers.{L}.self_attn.key_decay", Ignored, "H B 1", Layers::Linear, true},
      {"model.layers.{L}.self_attn.diagonal_decay", Ignored, "1 H B B", Layers::Linear, true},
  };
  return {
      .architectures = {"MiniMaxForCausalLM"},
      .spec = spec,
      .tensors = joined({skeleton_rows(), softmax, linear}),
      .forms = {block_experts(), fused_experts(mlp_router_rows())},
      .example = kExample,
  };
}

}  // namespace moue::converters
