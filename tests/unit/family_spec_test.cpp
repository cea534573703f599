// Specs: what each family's config.json says, under names that drift, and every refusal of it.
#include <catch2/catch.hpp>

#include "moue/error.h"
#include "support/families.h"
#include "support/headers_only.h"

using namespace moue;
using namespace moue::test;

namespace {

ModelSpec made(const char* family, const std::string& patch = "{}") {
  return family_named(family).spec(example_of(family, patch));
}

std::string refusal(const char* family, const std::string& patch) {
  return message_of([&] { made(family, patch); });
}

std::vector<bool> bits(const std::string& text) {
  std::vector<bool> result;
  for (const char c : text) result.push_back(c == '1');
  return result;
}

}  // namespace

TEST_CASE("spec of mixtral: names that drift, defaults of the code") {
  const ModelSpec s =
      made("mixtral", R"({"head_dim": null, "rms_norm_eps": null, "sliding_window": null})");
  CHECK(s.attention.head_width == 4);
  CHECK(s.attention.scale == 0.5);
  CHECK(s.rope.width == 4);
  CHECK(s.rope.theta == 1e6);
  CHECK(s.norm.eps == 1e-5);
  CHECK(s.experts == 5);
  CHECK(s.expert_width == 40);
  CHECK(s.router.score == RouterScore::Softmax);
  CHECK(s.router.renormalise);
  CHECK(s.router.aux_coefficient == 0.001);
  CHECK_FALSE(s.tied_head);
  CHECK(s.attention.window == std::vector<int64_t>(3, 0));
  CHECK(s.num_moe_layers() == 3);
  CHECK(made("mixtral", R"({"num_local_experts": null, "num_experts": 7})").experts == 7);
  CHECK(made("mixtral", R"({"num_local_experts": null, "n_routed_experts": 9})").experts == 9);
  CHECK(made("mixtral", R"({"rope_theta": 5e5})").rope.theta == 5e5);
  CHECK(made("mixtral").attention.window == std::vector<int64_t>(3, 9));
  CHECK(made("mixtral", R"({"tie_word_embeddings": true})").tied_head);
  CHECK(made("mixtral", R"({"head_dim": 12})").attention.head_width == 12);
  CHECK_FALSE(made("mixtral", R"({"attention_bias": true})").attention.bias);
}

TEST_CASE("spec of qwen3_moe: dense layers, windows, renormalisation") {
  const char* q = "qwen3_moe";
  CHECK(made(q).moe == bits("0101"));
  CHECK(made(q).dense_width == 56);
  CHECK(made(q).moe_layers() == std::vector<int64_t>{1, 3});
  const ModelSpec all = made(q, R"({"decoder_sparse_step": 1})");
  CHECK(all.moe == bits("1111"));
  CHECK(all.dense_width == 0);
  CHECK(made(q, R"({"decoder_sparse_step": 1, "mlp_only_layers": [0, 2, 9]})").moe == bits("0101"));
  CHECK(made(q).expert_width == 20);
  CHECK_FALSE(made(q).router.renormalise);
  CHECK(made(q, R"({"norm_topk_prob": true})").router.renormalise);
  CHECK(made(q).attention.qk_norm == QkNorm::PerHead);
  CHECK(made(q).norm.eps == 1e-6);
  CHECK(made(q).rope.theta == 1e4);
  CHECK(made(q, R"({"attention_bias": true})").attention.output_bias);
  CHECK(made(q).attention.window == std::vector<int64_t>(4, 9));
  CHECK(made(q, R"({"use_sliding_window": false})").attention.window == std::vector<int64_t>(4, 0));
  // transformers 5.17 reads no max_window_layers here.
  CHECK(made(q, R"({"max_window_layers": 2})").attention.window == std::vector<int64_t>(4, 9));
  CHECK(made(q, R"({"sliding_window": null})").attention.window == std::vector<int64_t>(4, 4096));
  CHECK(made(q, R"({"layer_types": ["full_attention", "sliding_attention", "full_attention",
    "sliding_attention"]})")
            .attention.window == std::vector<int64_t>{0, 9, 0, 9});
}

TEST_CASE("spec of qwen2_moe: the shared expert, biases, every second layer slides") {
  const char* q = "qwen2_moe";
  CHECK(made(q).shared_width == 28);
  CHECK(made(q).shared_gate);
  CHECK(made(q).moe == bits("1011"));
  CHECK(made(q).attention.bias);
  CHECK_FALSE(made(q).attention.output_bias);
  CHECK_FALSE(made(q, R"({"qkv_bias": false})").attention.bias);
  CHECK(made(q).attention.window == std::vector<int64_t>{9, 0, 0, 0});
  CHECK(made(q, R"({"max_window_layers": 28})").attention.window ==
        std::vector<int64_t>{9, 0, 9, 0});
  CHECK(made(q, R"({"use_sliding_window": false, "sliding_window": 0})").attention.window ==
        std::vector<int64_t>(4, 0));
  CHECK_FALSE(made(q).router.renormalise);
}

TEST_CASE("spec of olmoe and dbrx: limits, norms, powers") {
  const ModelSpec o = made("olmoe");
  CHECK(o.attention.clip == 1.5);
  CHECK(o.attention.qk_norm == QkNorm::Whole);
  CHECK(o.router.aux_coefficient == 0.01);
  CHECK_FALSE(o.router.renormalise);
  CHECK(made("olmoe", R"({"clip_qkv": null})").attention.clip == 0);
  const ModelSpec d = made("dbrx");
  CHECK(d.width == 24);
  CHECK(d.layers == 3);
  CHECK(d.attention.kv_heads == 2);
  CHECK(d.attention.clip == 1.5);
  CHECK(d.norm.kind == NormKind::Layer);
  CHECK_FALSE(d.norm.bias);
  CHECK(d.router.score_in_logits_dtype);
  CHECK(d.router.renormalise);
  CHECK(made("dbrx", R"({"ffn_config": {"moe_normalize_expert_weights": 2}})").router.norm_power ==
        2);
  CHECK(made("dbrx", R"({"ffn_config": {"moe_loss_weight": 0.05}})").router.aux_coefficient ==
        0.05);
  // The released one has its theta in attn_config; transformers 5 adds a default of its own.
  CHECK(made("dbrx", R"({"attn_config": {"rope_theta": 5e5},
    "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}})")
            .rope.theta == 5e5);
  const auto null_norm = Config::parse(
      R"({"vocab_size": 61, "d_model": 24, "n_layers": 3, "n_heads": 6, "ffn_config":
      {"ffn_hidden_size": 40, "moe_num_experts": 5, "moe_top_k": 2,
       "moe_normalize_expert_weights": null}})",
      "config.json");
  CHECK_FALSE(family_named("dbrx").spec(null_norm).router.renormalise);
}

TEST_CASE("spec of deepseek_v2 and deepseek_v3: groups, latent attention, scales") {
  const ModelSpec s = made("deepseek_v2");
  CHECK(s.moe == bits("0111"));
  CHECK(s.shared_width == 40);
  CHECK(s.dense_width == 56);
  CHECK(s.attention.kind(3) == AttentionKind::Latent);
  CHECK(s.attention.head_width == 12);
  CHECK(s.attention.latent.query_rank == 10);
  CHECK(s.attention.latent.value_width == 6);
  CHECK(s.rope.width == 4);
  CHECK(s.rope.interleaved);
  CHECK(s.router.score == RouterScore::Softmax);
  CHECK_FALSE(s.router.renormalise);
  CHECK(s.router.scale == 1.7);
  CHECK(s.router.groups == 4);
  CHECK(s.router.kept_groups == 2);
  CHECK(s.router.group_score == GroupScore::Best);
  CHECK(s.router.float32_logits);
  CHECK(made("deepseek_v2", R"({"topk_method": "greedy"})").router.groups == 1);
  CHECK(made("deepseek_v2", R"({"q_lora_rank": null})").attention.latent.query_rank == 1536);
  const Config lite =
      open_checkpoint("tests/golden/families/deepseek_v2_lite").config();  // q_lora_rank: null
  CHECK(family_named("deepseek_v2").spec(lite).attention.latent.query_rank == 0);
  const ModelSpec v3 = made("deepseek_v3");
  CHECK(v3.router.score == RouterScore::Sigmoid);
  CHECK(v3.router.correction);
  CHECK(v3.router.group_score == GroupScore::SumOfTwo);
  CHECK(v3.router.norm_eps == 1e-20);
  CHECK(v3.router.scale == 2.5);
  CHECK(v3.extra_layers == 1);
  CHECK(v3.attention.scale == Approx(1 / std::sqrt(12.0)));
  CHECK_FALSE(made("deepseek_v3", R"({"rope_interleave": false})").rope.interleaved);
  CHECK(made("deepseek_v3", R"({"norm_topk_prob": false})").router.norm_eps == 0);
}

TEST_CASE("spec of glm4_moe and minimax_m2: a part of each head, corrections") {
  const ModelSpec g = made("glm4_moe");
  CHECK(g.rope.width == 4);
  CHECK(g.router.groups == 2);
  CHECK(g.router.scale == 1);
  CHECK(g.attention.bias);
  CHECK_FALSE(g.attention.output_bias);
  CHECK(g.attention.qk_norm == QkNorm::PerHead);
  CHECK(made("glm4_moe", R"({"use_qk_norm": false})").attention.qk_norm == QkNorm::None);
  CHECK(made("glm4_moe", R"({"partial_rotary_factor": 0.75})").rope.width == 6);
  const ModelSpec m = made("minimax_m2");
  CHECK(m.rope.width == 4);
  CHECK(m.rope.theta == 5e6);
  CHECK(m.router.correction);
  CHECK(m.router.renormalise);
  CHECK_FALSE(m.router.float32_logits);
  CHECK(m.router.norm_eps == 0);
  CHECK(m.attention.qk_norm == QkNorm::Whole);
  CHECK(made("minimax_m2", R"({"rotary_dim": null})").rope.width == 8);
  CHECK(made("minimax_m2", R"({"num_mtp_modules": 3})").extra_layers == 3);
}

TEST_CASE("spec of phimoe, granitemoe, jetmoe, gpt_oss and minimax") {
  const ModelSpec p = made("phimoe");
  CHECK(p.router.score == RouterScore::Sparse);
  CHECK(p.router.jitter == 0.01);
  CHECK_FALSE(p.router.renormalise);
  CHECK(p.norm.kind == NormKind::Layer);
  CHECK(p.norm.bias);
  CHECK(p.head_bias);
  CHECK(p.attention.output_bias);
  const ModelSpec g = made("granitemoe");
  CHECK(g.attention.scale == 0.3);
  CHECK(g.scales.embedding == 3);
  CHECK(g.scales.residual == 0.4);
  CHECK(g.scales.logits == 2);
  CHECK(g.router.score == RouterScore::Chosen);
  const ModelSpec j = made("jetmoe", R"({"rms_norm_eps": 1e-5, "num_attention_heads": 99})");
  CHECK(j.attention.heads == 6);
  CHECK(j.attention.kind(0) == AttentionKind::Experts);
  CHECK(j.norm.eps == 1e-6);
  CHECK(j.norm.final_eps == 1e-5);
  CHECK(j.mlp_bias);
  CHECK(made("jetmoe", R"({"tie_word_embeddings": null})").tied_head);
  const ModelSpec o = made("gpt_oss");
  CHECK(o.attention.sinks);
  CHECK(o.attention.window == std::vector<int64_t>{4, 0, 4, 0});
  CHECK(made("gpt_oss", R"({"sliding_window": null})").attention.window[0] == 128);
  CHECK(o.activation == Activation::Clamped);
  CHECK(o.norm.gain_in_float32);
  CHECK(o.expert_bias);
  CHECK(o.router.bias);
  CHECK(o.router.score_in_logits_dtype);
  CHECK(o.rope.kind == RopeKind::Yarn);
  CHECK(o.rope.attention_factor == Approx(0.1 * std::log(32.0) + 1));
  CHECK_FALSE(o.rope.truncate);
  const ModelSpec m = made("minimax", R"({"full_attn_alpha_factor": 3, "mlp_beta_factor": 2})");
  CHECK(m.attention.kind(0) == AttentionKind::Linear);
  CHECK(m.attention.kind(1) == AttentionKind::Grouped);
  CHECK(m.attention.block == 5);
  CHECK(m.scales.after_norm);
  CHECK(m.scales.full_alpha == 3);
  CHECK(m.scales.mlp_beta == 2);
  const ModelSpec unsaid = made("minimax", R"({"layer_types": null})");
  CHECK(unsaid.attention.kind(0) == AttentionKind::Grouped);
  CHECK(unsaid.attention.kind(1) == AttentionKind::Linear);
}

TEST_CASE("rotary embeddings in old words and new") {
  const auto rope = [](const std::string& patch) { return made("mixtral", patch).rope; };
  CHECK(rope(R"({"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}})").theta == 1e4);
  const RopeSpec linear = rope(R"({"rope_scaling": {"type": "linear", "factor": 4}})");
  CHECK(linear.kind == RopeKind::Linear);
  CHECK(linear.factor == 4);
  CHECK(linear.attention_factor == 1);
  const RopeSpec yarn = rope(R"({"rope_theta": 5e5, "max_position_embeddings": 400,
    "rope_scaling": {"type": "yarn", "original_max_position_embeddings": 100, "beta_fast": 16}})");
  CHECK(yarn.kind == RopeKind::Yarn);
  CHECK(yarn.theta == 5e5);
  CHECK(yarn.factor == 4);
  CHECK(yarn.original_length == 100);
  CHECK(yarn.attention_factor == Approx(0.1 * std::log(4.0) + 1));
  CHECK(yarn.beta_fast == 16);
  CHECK(yarn.beta_slow == 1);
  CHECK(yarn.truncate);
  const char* both = R"({"rope_scaling": {"type": "yarn", "factor": 40, "mscale": 0.5,
    "mscale_all_dim": 0.25, "original_max_position_embeddings": 100}})";
  const double up = 0.05 * std::log(40.0) + 1, down = 0.025 * std::log(40.0) + 1;
  CHECK(rope(both).attention_factor == Approx(up / down));
  for (const char* family : {"deepseek_v2", "deepseek_v3"}) {
    CHECK(made(family, both).rope.attention_factor == Approx(up / down));
    CHECK(made(family, both).attention.scale == Approx(down * down / std::sqrt(12.0)));
  }
  const RopeSpec llama = rope(R"({"rope_parameters": {"rope_type": "llama3", "factor": 8,
    "low_freq_factor": 2, "high_freq_factor": 5, "original_max_position_embeddings": 64}})");
  CHECK(llama.kind == RopeKind::Llama3);
  CHECK(llama.low_frequency == 2);
  CHECK(llama.high_frequency == 5);
  CHECK(llama.attention_factor == 1);
  const RopeSpec longer = rope(R"({"max_position_embeddings": 400,
    "original_max_position_embeddings": 100, "rope_scaling": {"type": "longrope",
    "short_factor": [1, 1, 1, 2], "long_factor": [1, 2, 3, 4]}})");
  CHECK(longer.kind == RopeKind::Long);
  CHECK(longer.long_factors == std::vector<double>{1, 2, 3, 4});
  CHECK(longer.short_factors.back() == 2);
  CHECK(longer.attention_factor == Approx(std::sqrt(1 + std::log(4.0) / std::log(100.0))));
  const RopeSpec phi = made("phimoe", R"({"max_position_embeddings": 400, "rope_scaling":
    {"type": "longrope", "original_max_position_embeddings": 100, "short_mscale": 1.2,
     "long_mscale": 1.3, "short_factor": [1, 1], "long_factor": [2, 2]}})")
                           .rope;
  CHECK(phi.attention_factor == 1.2);
  CHECK(phi.long_attention_factor == 1.3);
}

TEST_CASE("what no part of moue computes is refused by key and value") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"rope_scaling": {"rope_type": null, "type": "dynamic", "factor": 4}})",
       "rope_scaling.type is 'dynamic', wanted one of 'default', 'linear'"},
      {R"({"rope_scaling": null, "rope_parameters": {"rope_type": "mrope"}})",
       "rope_parameters.rope_type is 'mrope'"},
      {R"({"rope_parameters": {"full_attention": {"rope_type": "default"}}})",
       "rope_parameters.full_attention is an object"},
      {R"({"rope_scaling": {"rope_type": "linear", "factor": 0}})", "rope_scaling.factor is 0"},
      {R"({"partial_rotary_factor": 1.5})", "partial_rotary_factor is 1.5, wanted"},
      {R"({"num_experts_per_tok": 0, "ffn_config": {"moe_top_k": 0}})", " is 0, wanted "},
      {R"({"vocab_size": -24})", "vocab_size is -24"},
      {R"({"vocab_size": null})", "vocab_size"},
      {R"({"rms_norm_eps": 0})", "rms_norm_eps is 0"},
      {R"({"router_aux_loss_coef": -1})", "router_aux_loss_coef is -1"},
      {R"({"num_hidden_layers": 1000000000000})",
       "num_hidden_layers is 1000000000000, wanted 1 to 65536"},
      {R"({"num_hidden_layers": 2.5})", "num_hidden_layers"},
  };
  for (const Family& family : families()) {
    for (const auto& [patch, wanted] : cases) {
      const std::string message = refusal(std::string(family.name).c_str(), patch);
      INFO(family.name << " " << patch << ": " << message);
      CHECK(contains(message, wanted));
      CHECK(contains(message, "pico/config.json"));
    }
  }
}

TEST_CASE("refusals of single families") {
  const std::vector<std::array<std::string, 3>> cases = {
      {"mixtral", R"({"hidden_act": "gelu"})", "hidden_act is 'gelu', wanted 'silu'"},
      {"jetmoe", R"({"activation_function": "relu"})", "activation_function is 'relu'"},
      {"dbrx", R"({"ffn_config": {"ffn_act_fn": {"name": "gelu"}}})",
       "ffn_config.ffn_act_fn.name is 'gelu'"},
      {"dbrx", R"({"tie_word_embeddings": true})", "tie_word_embeddings is true, wanted false"},
      {"dbrx", R"({"ffn_config": {"moe_normalize_expert_weights": 0}})",
       "ffn_config.moe_normalize_expert_weights is 0, wanted more than 0"},
      {"mixtral", R"({"rope_scaling": {"factor": 4.0}})", "rope_scaling.factor is 4 without a"},
      {"mixtral", R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor is 0.5, wanted 1"},
      {"mixtral", R"({"rope_theta": 0})", "rope_theta is 0, wanted 1 to 1e12"},
      {"mixtral", R"({"head_dim": 7})", "7 of 7 channels of a head (head_dim) are rotated"},
      {"minimax_m2", R"({"rotary_dim": 10})", "10 of 8 channels"},
      {"mixtral", R"({"num_experts_per_tok": 6})",
       "experts per token are 6, wanted at most the 5 experts"},
      {"mixtral", R"({"num_attention_heads": 5})",
       "num_attention_heads is 5, wanted a multiple of num_key_value_heads 2"},
      {"mixtral", R"({"num_local_experts": null, "num_experts": 70000})",
       "num_experts is 70000, wanted 1 to 65536"},
      {"mixtral", R"({"num_hidden_layers": 60000, "num_local_experts": 60000})",
       "wanted at most 16777216"},
      {"qwen3_moe", R"({"decoder_sparse_step": 5})", "none of its 4 layers is routed"},
      {"qwen3_moe", R"({"decoder_sparse_step": 0})", "decoder_sparse_step is 0"},
      {"qwen3_moe", R"({"layer_types": ["full_attention"]})",
       "layer_types has 1 entries, wanted num_hidden_layers 4"},
      {"qwen3_moe", R"({"layer_types": ["a", "b", "c", "d"]})",
       "layer_types[0] is 'a', wanted 'full_attention' or 'sliding_attention'"},
      {"minimax", R"({"layer_types": ["linear_attention", "b", "c", "d"]})",
       "layer_types[1] is 'b', wanted 'full_attention' or 'linear_attention'"},
      {"deepseek_v2", R"({"topk_method": "noaux_tc"})", "topk_method is 'noaux_tc'"},
      {"deepseek_v2", R"({"scoring_func": "sigmoid"})", "scoring_func is 'sigmoid'"},
      {"deepseek_v2", R"({"mlp_bias": true})", "mlp_bias is true, wanted false"},
      {"deepseek_v2", R"({"moe_layer_freq": 2})", "moe_layer_freq is 2, wanted 1"},
      {"deepseek_v3", R"({"n_group": 3})", "n_group is 3, wanted a divisor of the 8 experts"},
      {"deepseek_v3", R"({"n_group": 8})", "n_group is 8, wanted groups of two experts or more"},
      {"deepseek_v3", R"({"topk_group": 5})", "topk_group is 5, wanted at most n_group 4"},
      {"deepseek_v3", R"({"topk_group": 1})",
       "topk_group is 1, wanted groups that hold 3 experts together"},
      {"deepseek_v3", R"({"first_k_dense_replace": 5})", "first_k_dense_replace is 5"},
      {"phimoe", R"({"num_experts_per_tok": 3})", "num_experts_per_tok is 3, wanted 2"},
      {"phimoe", R"({"max_position_embeddings": 64, "rope_scaling": {"type": "yarn"}})",
       "rope_scaling.type is 'yarn', wanted 'longrope'"},
      {"phimoe", R"({"max_position_embeddings": 64, "rope_scaling": {"type": "longrope",
        "short_factor": [1], "long_factor": [1, 1]}})",
       "short_factor has 1 entries, wanted 2"},
      {"phimoe", R"({"max_position_embeddings": 64, "rope_scaling": {"type": "longrope",
        "short_factor": [1, 1], "long_factor": [1, 1]}})",
       "short_mscale is 0, wanted more than 0"},
      {"gpt_oss", R"({"rope_scaling": null})", "no key 'rope_scaling' or 'rope_parameters'"},
      {"minimax_m2", R"({"use_routing_bias": false})", "use_routing_bias is false, wanted true"},
      {"minimax_m2", R"({"attn_type_list": [1, 0, 1]})", "attn_type_list has a 0"},
  };
  for (const auto& [family, patch, wanted] : cases) {
    const std::string message = refusal(family.c_str(), patch);
    INFO(family << " " << patch << ": " << message);
    CHECK(contains(message, wanted));
  }
}
