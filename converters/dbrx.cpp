// DBRX: its own names; all experts of a layer one under the other, the down projection transposed.
#include "moue/converter.h"

namespace moue::converters {

namespace {

constexpr std::string_view kClip = "attn_config.clip_qkv";
// A power; null says that weights are not normalised.
constexpr std::string_view kNorm = "ffn_config.moe_normalize_expert_weights";

ModelSpec spec(const Config& c) {
  must_be(c, "tie_word_embeddings", false);
  ModelSpec s = common_spec(c, {.eps = 1e-5, .aux_coefficient = 0.01});
  s.expert_width = size(c, {"ffn_config.ffn_hidden_size"}, 3584);
  s.norm.kind = NormKind::Layer;
  s.router.score_in_logits_dtype = true;
  s.router.renormalise = !c.is_null(kNorm);
  s.router.norm_power = positive(c, {kNorm}, 1.0);
  s.attention = grouped_attention(c, s);
  if (c.has(kClip)) s.attention.clip = positive(c, {kClip}, 0);
  s.rope = rope(c, 1e4, s.attention.head_width);
  return checked(c, s);
}

constexpr auto kExample = R"({"architectures": ["DbrxForCausalLM"], "vocab_size": 61,
  "d_model": 24, "n_layers": 3, "n_heads": 6,
  "attn_config": {"kv_n_heads": 2, "clip_qkv": 1.5, "rope_theta": 10000.0},
  "ffn_config": {"ffn_hidden_size": 40, "moe_num_experts": 5, "moe_top_k": 2,
    "moe_normalize_expert_weights": 1.0, "ffn_act_fn": {"name": "silu"}}})";

}  // namespace

Family dbrx() {
  using enum Role;
  const Rows rows = {
      {"transformer.wte.weight", Embedding, "V D"},
      {"transformer.norm_f.weight", FinalNorm, "D"},
      {"lm_head.weight", OutputHead, "V D"},
      {"transformer.blocks.{L}.norm_attn_norm.norm_1.weight", AttentionNorm, "D", Layers::All},
      {"transformer.blocks.{L}.norm_attn_norm.norm_2.weight", MlpNorm, "D", Layers::All},
      {"transformer.blocks.{L}.norm_attn_norm.attn.Wqkv.weight", QueryKeyValue, "H*A+2*G*A D",
       Layers::All},
      {"transformer.blocks.{L}.norm_attn_norm.attn.out_proj.weight", AttentionOutput, "D H*A",
       Layers::All},
      {"transformer.blocks.{L}.ffn.router.layer.weight", Router, "E D", Layers::Moe},
  };
  const Form stacked = {
      "stacked",
      {
          {"transformer.blocks.{L}.ffn.experts.mlp.w1", ExpertGate, "E*F D", Layers::Moe},
          {"transformer.blocks.{L}.ffn.experts.mlp.v1", ExpertUp, "E*F D", Layers::Moe},
          {.name = "transformer.blocks.{L}.ffn.experts.mlp.w2",
           .role = ExpertDown,
           .shape = "E*F D",
           .layers = Layers::Moe,
           .transposed = true},
      }};
  return {
      .architectures = {"DbrxForCausalLM"},
      .spec = spec,
      .tensors = rows,
      .forms = {stacked},
      .example = kExample,
  };
}

}  // namespace moue::converters
