// Qwen3-MoE: norms on query and key heads, dense layers where the config says so, renormalised only
// if it says so.
#include "moue/config.h"
#include "moue/family.h"

#include <cmath>

namespace moue::converters {

namespace {

// Routed unless listed in mlp_only_layers, every decoder_sparse_step-th layer.
std::vector<bool> routed_layers(const Config& c, int64_t layers) {
  const int64_t step = size(c, {"decoder_sparse_step"}, 1);
  std::vector<bool> moe(layers);
  for (int64_t layer = 0; layer < layers; ++layer) moe[layer] = (layer + 1) % step == 0;
  for (int64_t layer : c.integers("mlp_only_layers")) {
    if (layer >= 0 && layer < layers) moe[layer] = false;
  }
  return moe;
}

ModelSpec qwen3_moe_spec(const Config& c) {
  ModelSpec s;
  s.vocabulary = size(c, {"vocab_size"});
  s.width = size(c, {"hidden_size"});
  s.layers = layers(c);
  s.moe = routed_layers(c, s.layers);
  if (s.num_moe_layers() < s.layers) s.dense_width = size(c, {"intermediate_size"});
  s.expert_width = size(c, {"moe_intermediate_size"});
  s.experts = experts(c);
  s.experts_per_token = size(c, {"num_experts_per_tok"});
  s.tied_head = c.boolean("tie_word_embeddings", false);
  s.norm.eps = c.real("rms_norm_eps", 1e-6);
  s.activation = activation(c);
  s.router.renormalise = c.boolean("norm_topk_prob", false);
  s.router.aux_coefficient = c.real("router_aux_loss_coef", 0.001);
  s.attention.heads = size(c, {"num_attention_heads"});
  s.attention.kv_heads = size(c, {"num_key_value_heads"});
  s.attention.head_width = size(c, {"head_dim"}, s.width / s.attention.heads);
  s.attention.scale = 1 / std::sqrt(s.attention.head_width);
  s.attention.qk_norm = QkNorm::PerHead;
  s.attention.bias = s.attention.output_bias = c.boolean("attention_bias", false);
  const bool sliding = c.boolean("use_sliding_window", false);
  s.attention.window = windows(c, s.layers, sliding ? size(c, {"sliding_window"}, 4096) : 0);
  s.rope = plain_rope(c, 1e4, s.attention.head_width);
  return checked(c, s);
}

}  // namespace

Family qwen3_moe() {
  using enum Role;
  return {
      .architectures = {"Qwen3MoeForCausalLM"},
      .spec = qwen3_moe_spec,
      .tensors =
          {
              {"model.embed_tokens.weight", Embedding, "V D"},
              {"model.norm.weight", FinalNorm, "D"},
              {.name = "lm_head.weight", .role = OutputHead, .shape = "V D", .optional = true},
              {.name = "model.rotary_emb.inv_freq",
               .role = Ignored,
               .shape = "A/2",
               .optional = true},
              {"model.layers.{L}.self_attn.rotary_emb.inv_freq", Ignored, "A/2", Layers::All, true},
              {"model.layers.{L}.input_layernorm.weight", AttentionNorm, "D", Layers::All},
              {"model.layers.{L}.self_attn.q_proj.weight", Query, "H*A D", Layers::All},
              {"model.layers.{L}.self_attn.q_proj.bias", QueryBias, "H*A", Layers::All, true},
              {"model.layers.{L}.self_attn.q_norm.weight", QueryNorm, "A", Layers::All},
              {"model.layers.{L}.self_attn.k_proj.weight", Key, "G*A D", Layers::All},
              {"model.layers.{L}.self_attn.k_proj.bias", KeyBias, "G*A", Layers::All, true},
              {"model.layers.{L}.self_attn.k_norm.weight", KeyNorm, "A", Layers::All},
              {"model.layers.{L}.self_attn.v_proj.weight", Value, "G*A D", Layers::All},
              {"model.layers.{L}.self_attn.v_proj.bias", ValueBias, "G*A", Layers::All, true},
              {"model.layers.{L}.self_attn.o_proj.weight", AttentionOutput, "D H*A", Layers::All},
              {"model.layers.{L}.self_attn.o_proj.bias", AttentionOutputBias, "D", Layers::All,
               true},
              {"model.layers.{L}.post_attention_layernorm.weight", MlpNorm, "D", Layers::All},
              {"model.layers.{L}.mlp.gate_proj.weight", DenseGate, "I D", Layers::Dense},
              {"model.layers.{L}.mlp.up_proj.weight", DenseUp, "I D", Layers::Dense},
              {"model.layers.{L}.mlp.down_proj.weight", DenseDown, "D I", Layers::Dense},
          },
      .forms = {{"per expert",
                 {
                     {"model.layers.{L}.mlp.gate.weight", Router, "E D", Layers::Moe},
                     {"model.layers.{L}.mlp.experts.{E}.gate_proj.weight", ExpertGate, "F D",
                      Layers::Moe},
                     {"model.layers.{L}.mlp.experts.{E}.up_proj.weight", ExpertUp, "F D",
                      Layers::Moe},
                     {"model.layers.{L}.mlp.experts.{E}.down_proj.weight", ExpertDown, "D F",
                      Layers::Moe},
                 }}},
  };
}

}  // namespace moue::converters
