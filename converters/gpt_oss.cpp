// gpt-oss: attention sinks, biases everywhere, experts stored transposed with gate and up in turn,
// or packed in four bits.
#include "moue/converter.h"

#include "moue/error.h"

namespace moue::converters {

namespace {

std::vector<int64_t> every_second(const Config& c, int64_t layers) {
  const bool unset = !c.has("sliding_window") && !c.is_null("sliding_window");
  std::vector<bool> sliding(layers);
  for (int64_t layer = 0; layer < layers; layer += 2) sliding[layer] = true;
  return windows(c, unset ? 128 : sliding_window(c), sliding);
}

ModelSpec spec(const Config& c) {
  if (!c.has("rope_scaling") && !c.has("rope_parameters"))
    fail("family", "{}: no key 'rope_scaling' or 'rope_parameters', wanted gpt-oss's yarn",
         c.origin());
  ModelSpec s = common_spec(c, {.eps = 1e-5});
  s.expert_width = size(c, {"intermediate_size"});
  s.expert_bias = true;
  s.norm.gain_in_float32 = true;
  s.activation = Activation::Clamped;
  s.activation_alpha = c.real("swiglu_alpha", 1.702);
  s.activation_limit = c.real("swiglu_limit", 7.0);
  s.router.score = RouterScore::Chosen;
  s.router.bias = s.router.score_in_logits_dtype = true;
  s.attention = grouped_attention(c, s);
  s.attention.bias = s.attention.output_bias = c.boolean("attention_bias", true);
  s.attention.sinks = true;
  s.attention.window = every_second(c, s.layers);
  s.rope = rope(c, 150000, s.attention.head_width);
  return checked(c, s);
}

constexpr auto kExample = R"({"architectures": ["GptOssForCausalLM"], "vocab_size": 61,
  "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 6,
  "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 5, "num_experts_per_tok": 2,
  "hidden_act": "silu", "sliding_window": 4, "rope_scaling": {"rope_type": "yarn", "factor": 32.0,
  "original_max_position_embeddings": 4096, "truncate": false}})";

}  // namespace

Family gpt_oss() {
  using enum Role;
  const Rows rest = {
      {"model.layers.{L}.self_attn.sinks", Sinks, "H", Layers::All},
      {"model.layers.{L}.mlp.router.weight", Router, "E D", Layers::Moe},
      {"model.layers.{L}.mlp.router.bias", RouterBias, "E", Layers::Moe},
      {"model.layers.{L}.mlp.experts.gate_up_proj_bias", ExpertGateUpBiasPairs, "E 2*F",
       Layers::Moe},
      {"model.layers.{L}.mlp.experts.down_proj_bias", ExpertDownBias, "E D", Layers::Moe},
  };
  const Form transposed = {"transposed",
                           {
                               {.name = "model.layers.{L}.mlp.experts.gate_up_proj",
                                .role = ExpertGateUpPairs,
                                .shape = "E D 2*F",
                                .layers = Layers::Moe,
                                .transposed = true},
                               {.name = "model.layers.{L}.mlp.experts.down_proj",
                                .role = ExpertDown,
                                .shape = "E F D",
                                .layers = Layers::Moe,
                                .transposed = true},
                           }};
  const Form packed = {
      "MXFP4",
      {
          {.name = "model.layers.{L}.mlp.experts.gate_up_proj_blocks",
           .role = ExpertGateUpPairs,
           .shape = "E 2*F D/32 16",
           .layers = Layers::Moe,
           .packing = Packing::Mxfp4},
          {"model.layers.{L}.mlp.experts.gate_up_proj_scales", Scale, "E 2*F D/32", Layers::Moe},
          {.name = "model.layers.{L}.mlp.experts.down_proj_blocks",
           .role = ExpertDown,
           .shape = "E D F/32 16",
           .layers = Layers::Moe,
           .packing = Packing::Mxfp4},
          {"model.layers.{L}.mlp.experts.down_proj_scales", Scale, "E D F/32", Layers::Moe},
      }};
  return {
      .architectures = {"GptOssForCausalLM"},
      .spec = spec,
      .tensors = joined({skeleton_rows(), attention_rows(), rest}),
      .forms = {transposed, packed},
      .example = kExample,
  };
}

}  // namespace moue::converters
