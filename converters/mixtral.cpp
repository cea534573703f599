// Mixtral: every layer routed, top-k of a softmax and always renormalised, one tensor per expert
// and projection.
#include "moue/config.h"
#include "moue/family.h"

#include <cmath>

namespace moue::converters {

namespace {

ModelSpec mixtral_spec(const Config& c) {
  ModelSpec s;
  s.vocabulary = size(c, {"vocab_size"});
  s.width = size(c, {"hidden_size"});
  s.layers = layers(c);
  s.moe.assign(s.layers, true);
  s.expert_width = size(c, {"intermediate_size"});
  s.experts = experts(c);
  s.experts_per_token = size(c, {"num_experts_per_tok"});
  s.tied_head = c.boolean("tie_word_embeddings", false);
  s.norm.eps = c.real("rms_norm_eps", 1e-5);
  s.activation = activation(c);
  s.router.aux_coefficient = c.real("router_aux_loss_coef", 0.001);
  s.attention.heads = size(c, {"num_attention_heads"});
  s.attention.kv_heads = size(c, {"num_key_value_heads"});
  s.attention.head_width = size(c, {"head_dim"}, s.width / s.attention.heads);
  s.attention.scale = 1 / std::sqrt(s.attention.head_width);
  s.attention.window.assign(s.layers, c.has("sliding_window") ? size(c, {"sliding_window"}) : 0);
  s.rope = plain_rope(c, 1e6, s.attention.head_width);
  return checked(c, s);
}

}  // namespace

Family mixtral() {
  using enum Role;
  return {
      .architectures = {"MixtralForCausalLM"},
      .spec = mixtral_spec,
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
              {"model.layers.{L}.self_attn.k_proj.weight", Key, "G*A D", Layers::All},
              {"model.layers.{L}.self_attn.v_proj.weight", Value, "G*A D", Layers::All},
              {"model.layers.{L}.self_attn.o_proj.weight", AttentionOutput, "D H*A", Layers::All},
              {"model.layers.{L}.post_attention_layernorm.weight", MlpNorm, "D", Layers::All},
          },
      .forms = {{"per expert",
                 {
                     {"model.layers.{L}.block_sparse_moe.gate.weight", Router, "E D", Layers::Moe},
                     {"model.layers.{L}.block_sparse_moe.experts.{E}.w1.weight", ExpertGate, "F D",
                      Layers::Moe},
                     {"model.layers.{L}.block_sparse_moe.experts.{E}.w3.weight", ExpertUp, "F D",
                      Layers::Moe},
                     {"model.layers.{L}.block_sparse_moe.experts.{E}.w2.weight", ExpertDown, "D F",
                      Layers::Moe},
                 }}},
  };
}

}  // namespace moue::converters
