// MiniMax-M2: sigmoid scores with a correction of the choice, norms over the whole query and key, a
// part of each head rotated.
#include "moue/converter.h"

#include "moue/error.h"

namespace moue::converters {

namespace {

void refuse_what_the_code_lacks(const Config& c) {
  must_be(c, "scoring_func", "sigmoid");
  must_be(c, "use_routing_bias", true);
  must_be(c, "use_qk_norm", true);
  must_be(c, "qk_norm_type", "per_layer");
  must_be(c, "shared_intermediate_size", 0.0);
  for (const int64_t type : c.integers("attn_type_list")) {
    if (type != 1)
      fail("family", "{}: attn_type_list has a {}, wanted 1 throughout", c.origin(), type);
  }
}

ModelSpec spec(const Config& c) {
  refuse_what_the_code_lacks(c);
  ModelSpec s = common_spec(c);
  s.expert_width = size(c, {"intermediate_size"});
  s.extra_layers = extra_layers(c, 0);
  s.router.score = RouterScore::Sigmoid;
  s.router.correction = true;
  s.attention = grouped_attention(c, s);
  s.attention.bias = s.attention.output_bias = false;
  s.attention.qk_norm = QkNorm::Whole;
  s.rope = partial_rope(c, 5e6, s.attention.head_width);
  return checked(c, s);
}

constexpr auto kExample = R"({"architectures": ["MiniMaxM2ForCausalLM"], "vocab_size": 61,
  "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 6,
  "num_key_value_heads": 2, "head_dim": 8, "rotary_dim": 4, "num_local_experts": 7,
  "num_experts_per_tok": 3, "hidden_act": "silu"})";

}  // namespace

Family minimax_m2() {
  using enum Role;
  const Rows block = {{"model.layers.{L}.block_sparse_moe.e_score_correction_bias",
                       RouterCorrection, "E", Layers::Moe}};
  const Rows mlp = {
      {"model.layers.{L}.mlp.e_score_correction_bias", RouterCorrection, "E", Layers::Moe}};
  return {
      .architectures = {"MiniMaxM2ForCausalLM"},
      .spec = spec,
      .tensors = joined({skeleton_rows(), attention_rows(), vector_norm_rows()}),
      .forms = {block_experts(block), fused_experts(joined({mlp_router_rows(), mlp}))},
      .example = kExample,
  };
}

}  // namespace moue::converters
