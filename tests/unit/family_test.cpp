// Families: the registry, claims against released tensor lists, and every refusal of a config.
#include "moue/family.h"

#include "family/families.h"
#include "moue/error.h"
#include "support/headers_only.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <chrono>
#include <cmath>
#include <fstream>
#include <stdexcept>

using namespace moue;
using moue::test::contains;
using moue::test::headers_only;
using moue::test::message_of;

namespace {

struct Released {
  std::string config;
  std::vector<TensorInfo> tensors;
};

// "layers.{0-31}.x" into 32 names; both braces of a name are expanded.
void expand(const std::string& pattern, const std::vector<int64_t>& shape,
            std::vector<TensorInfo>& out) {
  const size_t open = pattern.find('{');
  if (open == std::string::npos) {
    TensorInfo tensor;
    tensor.name = pattern;
    tensor.shape = shape;
    out.push_back(tensor);
    return;
  }
  const size_t close = pattern.find('}', open);
  const int last = std::stoi(pattern.substr(open + 3, close - open - 3));
  for (int i = 0; i <= last; ++i) {
    expand(pattern.substr(0, open) + std::to_string(i) + pattern.substr(close + 1), shape, out);
  }
}

Released released(const std::string& family) {
  Released result;
  std::ifstream file("tests/golden/tensors/" + family + ".txt");
  for (std::string line; std::getline(file, line);) {
    const size_t space = line.find(' ');
    const std::string word = line.substr(0, space), rest = line.substr(space + 1);
    if (word == "#") continue;
    if (word == "config") {
      result.config = rest;
    } else {
      expand(word, nlohmann::json::parse(rest).get<std::vector<int64_t>>(), result.tensors);
    }
  }
  return result;
}

const Family& family_named(const std::string& name) {
  for (const Family& family : families()) {
    if (family.name == name) return family;
  }
  throw std::logic_error("no family " + name);
}

// A small config every family here reads, with some keys replaced (null removes).
Config pico(const std::string& architecture, const std::string& patch = "{}") {
  auto json = nlohmann::ordered_json::parse(
      R"({"vocab_size": 61, "hidden_size": 24, "intermediate_size": 56,
    "moe_intermediate_size": 20, "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 2,
    "head_dim": 8, "num_local_experts": 5, "num_experts_per_tok": 2, "hidden_act": "silu", "rms_norm_eps": 1e-5})");
  json["architectures"] = {architecture};
  json.merge_patch(nlohmann::ordered_json::parse(patch));
  return Config(json, "pico/config.json");
}

// Every tensor that the family's rows ask for on a geometry.
std::vector<TensorInfo> tensors_of(const Family& family, const Config& config, bool with_optional) {
  const Geometry geometry = geometry_of(family.spec(config));
  std::vector<TensorInfo> result;
  std::vector<Row> rows = family.tensors;
  rows.insert(rows.end(), family.forms[0].rows.begin(), family.forms[0].rows.end());
  for (const Row& row : rows) {
    if (row.optional && !with_optional) continue;
    const bool has_layer = contains(std::string(row.name), "{L}"),
               has_expert = contains(std::string(row.name), "{E}");
    for (int64_t layer = 0; layer < (has_layer ? static_cast<int64_t>(geometry.moe.size()) : 1);
         ++layer) {
      if (has_layer && row.layers != Layers::All &&
          (row.layers == Layers::Moe) != geometry.moe[layer])
        continue;
      for (int64_t expert = 0; expert < (has_expert ? geometry.experts : 1); ++expert) {
        TensorInfo tensor;
        tensor.name = expand_name(row.name, layer, expert);
        tensor.shape = expand_shape(row.shape, geometry);
        result.push_back(tensor);
      }
    }
  }
  return result;
}

void drop(std::vector<TensorInfo>& tensors, const std::string& name) {
  std::erase_if(tensors, [&](const TensorInfo& tensor) { return tensor.name == name; });
}

std::string claim_message(const Config& config, std::vector<TensorInfo> tensors,
                          const Family& family) {
  return message_of([&] { claim(headers_only(config, std::move(tensors)), family); });
}

}  // namespace

TEST_CASE("expansion of names and shapes") {
  CHECK(expand_name("layers.{L}.experts.{E}", 3, 1) == "layers.3.experts.1");
  const Geometry g{.width = 24, .heads = 6, .kv_heads = 2, .head_width = 8};
  CHECK(expand_shape("H*A D", g) == std::vector<int64_t>{48, 24});
  CHECK(expand_shape("A/2", g) == std::vector<int64_t>{4});
  CHECK_THROWS_AS(expand_shape("X D", g), std::logic_error);
  CHECK(expand_shape("2*H*A+G", g) == std::vector<int64_t>{98});
  CHECK_THROWS_AS(expand_shape("H-A", g), std::logic_error);
}

TEST_CASE("every file of converters is in the registry, once") {
  std::vector<std::string> names;
  for (const Family& family : families()) names.emplace_back(family.name);
  CHECK(std::is_sorted(names.begin(), names.end()));
  size_t files = 0;
  for (const auto& file : std::filesystem::directory_iterator("converters")) {
    if (file.path().extension() != ".cpp") continue;
    ++files;
    CHECK(std::count(names.begin(), names.end(), file.path().stem().string()) == 1);
  }
  CHECK(files == names.size());
}

TEST_CASE("two families of one architecture are refused") {
  std::vector<Family> twice = families();
  CHECK_NOTHROW(check_families(twice));
  twice.push_back(twice.front());
  twice.back().name = "copy";
  CHECK_THROWS_WITH(check_families(twice),
                    Catch::Contains("copy both claim " + std::string(twice[0].architectures[0])));
}

TEST_CASE("every family claims what its rows ask for") {
  for (const Family& family : families()) {
    const Config config =
        pico(std::string(family.architectures[0]), R"({"tie_word_embeddings": true})");
    CHECK(&family_of(config) == &family);
    const std::vector<TensorInfo> tensors = tensors_of(family, config, false);
    const Checkpoint checkpoint = headers_only(config, tensors);
    const Claims claims = claim(checkpoint, family);
    CHECK(claims.of_tensors().size() == tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      const Claim& c = claims.of_tensors()[i];
      REQUIRE(c.row);
      CHECK(claims.find(c.row->role, c.layer, c.expert) == &checkpoint.tensors()[i]);
      CHECK(expand_name(c.row->name, c.layer, c.expert) == tensors[i].name);
      std::vector<TensorInfo> fewer = tensors;
      drop(fewer, tensors[i].name);
      CHECK(contains(claim_message(config, fewer, family),
                     "1 tensor missing (" + tensors[i].name + ")"));
    }
    CHECK(claims.find(Role::OutputHead) == nullptr);
    CHECK_THROWS_WITH(claims.at(Role::OutputHead), Catch::Contains("output_head"));
  }
}

TEST_CASE("released tensor lists are claimed whole") {
  for (const Family& family : families()) {
    const Released list = released(std::string(family.name));
    REQUIRE_FALSE(list.tensors.empty());
    const Config config = Config::parse(list.config, "config.json");
    const Checkpoint checkpoint = headers_only(config, list.tensors);
    const Claims claims = claim(checkpoint, family_of(config));
    for (const Claim& c : claims.of_tensors()) CHECK(c.row != nullptr);
    // A family with a forgotten row agrees with itself, but not with this list.
    for (const bool in_form : {false, true}) {
      const std::vector<Row>& rows = in_form ? family.forms[0].rows : family.tensors;
      for (size_t row = 0; row < rows.size(); ++row) {
        if (rows[row].role == Role::Ignored || rows[row].layers == Layers::Dense) continue;
        if (rows[row].optional && rows[row].role != Role::OutputHead) continue;
        Family forgetful = family;
        auto& cut = in_form ? forgetful.forms[0].rows : forgetful.tensors;
        cut.erase(cut.begin() + static_cast<ptrdiff_t>(row));
        CHECK(contains(claim_message(config, list.tensors, forgetful), " without a row ("));
      }
    }
  }
  CHECK(released("mixtral").tensors.size() == 995);
  CHECK(released("qwen3_moe").tensors.size() == 18867);
}

TEST_CASE("all faults of a checkpoint are listed at once") {
  const Family& mixtral = family_named("mixtral");
  const Config config = pico("MixtralForCausalLM");
  std::vector<TensorInfo> tensors = tensors_of(mixtral, config, false);
  expand("lm_head.weight", {61, 24}, tensors);
  CHECK(claim_message(config, tensors, mixtral) == "");
  drop(tensors, "model.layers.2.self_attn.v_proj.weight");
  drop(tensors, "lm_head.weight");
  expand("model.layers.4.input_layernorm.weight", {24}, tensors);
  expand("model.layers.01.input_layernorm.weight", {24}, tensors);
  expand("model.layers.0.block_sparse_moe.experts.5.w1.weight", {56, 24}, tensors);
  tensors[0].shape = {61, 25};
  const std::string message = claim_message(config, tensors, mixtral);
  CHECK(contains(
      message, "[family] headers does not fit converters/mixtral.cpp: 3 tensors without a row ("));
  CHECK(contains(message,
                 "model.layers.4.input_layernorm.weight, model.layers.01.input_layernorm.weight, "
                 "model.layers.0.block_sparse_moe.experts.5.w1.weight)"));
  CHECK(contains(message,
                 "2 tensors missing (lm_head.weight, model.layers.2.self_attn.v_proj.weight)"));
  CHECK(
      contains(message,
               "1 tensor of another shape (model.embed_tokens.weight is [61, 25], config.json asks "
               "for [61, 24])"));
}

TEST_CASE("optional tensors: a tied head, rotary buffers, biases as the config says") {
  const Family& qwen = family_named("qwen3_moe");
  const Config plain = pico("Qwen3MoeForCausalLM", R"({"tie_word_embeddings": true})");
  std::vector<TensorInfo> tensors = tensors_of(qwen, plain, false);
  expand("lm_head.weight", {61, 24}, tensors);
  expand("model.layers.{0-3}.self_attn.rotary_emb.inv_freq", {4}, tensors);
  const Checkpoint checkpoint = headers_only(plain, tensors);
  const Claims claims = claim(checkpoint, qwen);
  CHECK(claims.find(Role::OutputHead) != nullptr);
  CHECK(claims.of_tensors().back().row->role == Role::Ignored);

  expand("model.layers.1.self_attn.q_proj.bias", {48}, tensors);
  CHECK(contains(claim_message(plain, tensors, qwen),
                 "1 tensor without a row (model.layers.1.self_attn.q_proj.bias)"));
  const Config biased =
      pico("Qwen3MoeForCausalLM", R"({"tie_word_embeddings": true, "attention_bias": true})");
  CHECK(contains(claim_message(biased, tensors, qwen),
                 "15 tensors missing (model.layers.0.self_attn.q_proj.bias, "));
  CHECK(claim_message(biased, tensors_of(qwen, biased, true), qwen) == "");
}

TEST_CASE("tensors of the pool are left to it, where there is one") {
  const Family& mixtral = family_named("mixtral");
  const std::string tied = R"({"tie_word_embeddings": true})";
  const Config source = pico("MixtralForCausalLM", tied);
  const Config moue =
      pico("MoUEForCausalLM", R"({"tie_word_embeddings": true, "moue": {"version": 1}})");
  std::vector<TensorInfo> tensors = tensors_of(mixtral, source, false);
  expand("moue.pool_bias", {20}, tensors);
  const Checkpoint checkpoint = headers_only(moue, tensors);
  CHECK(claim(checkpoint, mixtral).of_tensors().back().row == nullptr);
  CHECK(
      contains(claim_message(source, tensors, mixtral), "1 tensor without a row (moue.pool_bias)"));
}

TEST_CASE("92,000 tensors are claimed in well under a second") {
  const Config config =
      pico("Qwen3MoeForCausalLM", R"({"num_hidden_layers": 238, "num_local_experts": 128})");
  const Family& qwen = family_named("qwen3_moe");
  std::vector<TensorInfo> tensors = tensors_of(qwen, config, false);
  expand("lm_head.weight", {61, 24}, tensors);
  CHECK(tensors.size() > 92000);
  const Checkpoint checkpoint = headers_only(config, std::move(tensors));
  const auto start = std::chrono::steady_clock::now();
  const Claims claims = claim(checkpoint, qwen);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  CHECK(claims.of_tensors().size() == checkpoint.tensors().size());
  CHECK(taken.count() < 1.0);
}

TEST_CASE("an unknown architecture is told what is known") {
  CHECK(message_of([] { family_of(pico("MixtralForCausalLN")); }) ==
        "[family] pico/config.json answers to 'MixtralForCausalLN', which no file in converters/ "
        "claims; known: "
        "MixtralForCausalLM, Qwen3MoeForCausalLM; did you mean MixtralForCausalLM?");
  CHECK(contains(message_of([] { family_of(pico("x", R"({"architectures": null})")); }),
                 "answers to no architecture"));
}

TEST_CASE("a MoUE is of its source's family") {
  const Config moue =
      pico("MoUEForCausalLM", R"({"moue": {"base_architectures": ["Qwen3MoeForCausalLM"]}})");
  CHECK(family_of(moue).name == "qwen3_moe");
}

TEST_CASE("spec of mixtral: names that drift, defaults of the code") {
  const auto spec = family_named("mixtral").spec;
  const ModelSpec s =
      spec(pico("MixtralForCausalLM", R"({"head_dim": null, "rms_norm_eps": null})"));
  CHECK(s.attention.head_width == 4);
  CHECK(s.attention.scale == 0.5);
  CHECK(s.rope.width == 4);
  CHECK(s.rope.theta == 1e6);
  CHECK(s.norm.eps == 1e-5);
  CHECK(s.experts == 5);
  CHECK(s.expert_width == 56);
  CHECK(s.router.renormalise);
  CHECK(s.router.aux_coefficient == 0.001);
  CHECK_FALSE(s.tied_head);
  CHECK(s.attention.window == std::vector<int64_t>(4, 0));
  CHECK(s.num_moe_layers() == 4);
  CHECK(spec(pico("", R"({"num_local_experts": null, "num_experts": 7})")).experts == 7);
  CHECK(spec(pico("", R"({"num_local_experts": null, "n_routed_experts": 9})")).experts == 9);
  CHECK(spec(pico("", R"({"rope_theta": 5e5})")).rope.theta == 5e5);
  CHECK(spec(pico("", R"({"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}})"))
            .rope.theta == 1e4);
  CHECK(spec(pico("", R"({"sliding_window": 5})")).attention.window == std::vector<int64_t>(4, 5));
  CHECK(spec(pico("", R"({"tie_word_embeddings": true})")).tied_head);
  CHECK(spec(pico("", R"({"head_dim": 12})")).attention.head_width == 12);
}

TEST_CASE("spec of qwen3_moe: dense layers, windows, renormalisation") {
  const auto spec = family_named("qwen3_moe").spec;
  const auto made = [&](const std::string& patch) { return spec(pico("", patch)); };
  CHECK(made("{}").moe == std::vector<bool>{true, true, true, true});
  CHECK(made("{}").dense_width == 0);
  CHECK(made(R"({"decoder_sparse_step": 2})").moe == std::vector<bool>{false, true, false, true});
  CHECK(made(R"({"decoder_sparse_step": 2})").dense_width == 56);
  CHECK(made(R"({"decoder_sparse_step": 2})").moe_layers() == std::vector<int64_t>{1, 3});
  CHECK(made(R"({"mlp_only_layers": [0, 2, 9]})").moe ==
        std::vector<bool>{false, true, false, true});
  CHECK(made("{}").expert_width == 20);
  CHECK_FALSE(made("{}").router.renormalise);
  CHECK(made(R"({"norm_topk_prob": true})").router.renormalise);
  CHECK(made("{}").attention.qk_norm == QkNorm::PerHead);
  CHECK(made(R"({"rms_norm_eps": null})").norm.eps == 1e-6);
  CHECK(made("{}").rope.theta == 1e4);
  CHECK(made(R"({"attention_bias": true})").attention.output_bias);
  CHECK(made(R"({"sliding_window": 9})").attention.window == std::vector<int64_t>(4, 0));
  CHECK(made(R"({"sliding_window": 9, "max_window_layers": 2})").attention.window ==
        std::vector<int64_t>(4, 0));
  CHECK(made(R"({"sliding_window": 9, "use_sliding_window": true})").attention.window ==
        std::vector<int64_t>(4, 9));
  CHECK(made(R"({"use_sliding_window": true})").attention.window == std::vector<int64_t>(4, 4096));
  CHECK(made(R"({"sliding_window": 9, "use_sliding_window": true, "layer_types":
    ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]})")
            .attention.window == std::vector<int64_t>{0, 9, 0, 9});
}

TEST_CASE("what no part of moue computes is refused by key and value") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"hidden_act": "gelu"})", "hidden_act is 'gelu', wanted 'silu'"},
      {R"({"rope_scaling": {"type": "yarn", "factor": 4}})",
       "rope_scaling.type is 'yarn', wanted 'default'"},
      {R"({"rope_scaling": {"rope_type": "llama3"}})", "rope_scaling.rope_type is 'llama3'"},
      {R"({"rope_parameters": {"rope_type": "linear"}})", "rope_parameters.rope_type is 'linear'"},
      {R"({"rope_scaling": {"factor": 4.0}})", "rope_scaling.factor is 4, wanted 1"},
      {R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor is 0.5, wanted 1"},
      {R"({"rope_theta": 0})", "rope_theta is 0, wanted 1 to 1e12"},
      {R"({"num_experts_per_tok": 6})", "experts per token are 6, wanted at most the 5 experts"},
      {R"({"num_experts_per_tok": 0})", "num_experts_per_tok is 0, wanted 1 to 16777216"},
      {R"({"num_attention_heads": 5})",
       "num_attention_heads is 5, wanted a multiple of num_key_value_heads 2"},
      {R"({"head_dim": 7})", "head_dim is 7, wanted an even number"},
      {R"({"hidden_size": -24})", "hidden_size is -24"},
      {R"({"num_hidden_layers": 1000000000000})",
       "num_hidden_layers is 1000000000000, wanted 1 to 65536"},
      {R"({"num_local_experts": null, "num_experts": 70000})",
       "num_experts is 70000, wanted 1 to 65536"},
      {R"({"num_hidden_layers": 60000, "num_local_experts": 60000})", "wanted at most 16777216"},
      {R"({"rms_norm_eps": 0})", "rms_norm_eps is 0"},
      {R"({"router_aux_loss_coef": -1})", "router_aux_loss_coef is -1"},
      {R"({"hidden_size": null})", "hidden_size"},
      {R"({"num_hidden_layers": 2.5})", "num_hidden_layers"},
  };
  for (const Family& family : families()) {
    for (const auto& [patch, wanted] : cases) {
      const std::string message = message_of([&] { family.spec(pico("", patch)); });
      INFO(family.name << " " << patch << ": " << message);
      CHECK(contains(message, wanted));
      CHECK(contains(message, "pico/config.json"));
    }
  }
  const auto qwen = [](const std::string& patch) {
    return message_of([&] { family_named("qwen3_moe").spec(pico("", patch)); });
  };
  CHECK(contains(qwen(R"({"decoder_sparse_step": 5})"), "none of its 4 layers is routed"));
  CHECK(contains(qwen(R"({"decoder_sparse_step": 0})"), "decoder_sparse_step is 0"));
  CHECK(contains(qwen(R"({"use_sliding_window": true, "max_window_layers": 2})"),
                 "max_window_layers is 2, wanted none"));
  CHECK(contains(qwen(R"({"layer_types": ["full_attention"]})"),
                 "layer_types has 1 entries, wanted num_hidden_layers 4"));
  CHECK(contains(qwen(R"({"layer_types": ["a", "b", "c", "d"]})"), "layer_types[0] is 'a'"));
}
