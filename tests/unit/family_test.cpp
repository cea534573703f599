// Families: the registry, a walk over every form of every family, claims and their faults.
#include "moue/family.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <deque>
#include <filesystem>
#include <stdexcept>

#include "family/families.h"
#include "moue/error.h"
#include "support/families.h"
#include "support/headers_only.h"

using namespace moue;
using namespace moue::test;

namespace {

// Claims what the rows of a form ask for, and misses each tensor that is taken away.
void walk(const Family& family, size_t form) {
  const Config config = example_of(family);
  INFO(family.name << ", " << family.forms[form].name);
  const std::vector<TensorInfo> tensors = tensors_of(family, config, form);
  const Checkpoint checkpoint = headers_only(config, tensors);
  const Claims claims = claim(checkpoint, family);
  CHECK(claims.form() == family.forms[form].name);
  REQUIRE(claims.of_tensors().size() == tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Claim& c = claims.of_tensors()[i];
    REQUIRE(c.row);
    CHECK(expand_name(c.row->name, c.layer, c.expert) == tensors[i].name);
    if (c.row->role == Role::Scale) continue;
    CHECK(claims.find(c.row->role, c.layer, c.expert) == &checkpoint.tensors()[i]);
    std::vector<TensorInfo> fewer = tensors;
    drop(fewer, tensors[i].name);
    CHECK(contains(claim_message(config, fewer, family),
                   "1 tensor missing (" + tensors[i].name + ")"));
  }
}

std::string_view kept(std::string text) {
  static std::deque<std::string> texts;
  return texts.emplace_back(std::move(text));
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

// The family under another name: what a new file in converters/ would add.
Family renamed(Family family) {
  family.name = "fifteenth";
  family.architectures = {"FifteenthForCausalLM"};
  family.example = kept(replaced(std::string(family.example), "Olmoe", "Fifteenth"));
  const auto rename = [](Row& row) {
    row.name = kept(replaced(std::string(row.name), "mlp", "ffn"));
  };
  for (Row& row : family.tensors) rename(row);
  for (Form& form : family.forms) {
    for (Row& row : form.rows) rename(row);
  }
  return family;
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

TEST_CASE("every form of every family claims what its rows ask for") {
  for (const Family& family : families()) {
    CHECK(&family_of(example_of(family)) == &family);
    for (size_t form = 0; form < family.forms.size(); ++form) walk(family, form);
  }
}

TEST_CASE("a fifteenth family is found and walked") {
  std::vector<Family> table = families();
  CHECK_THROWS_WITH(family_in(table, example_of(renamed(family_named("olmoe")))),
                    Catch::Contains("'FifteenthForCausalLM', which no file"));
  table.push_back(renamed(family_named("olmoe")));
  CHECK_NOTHROW(check_families(table));
  const Family& found = family_in(table, example_of(table.back()));
  CHECK(found.name == "fifteenth");
  for (size_t form = 0; form < found.forms.size(); ++form) walk(found, form);
  const Family& olmoe = family_named("olmoe");
  CHECK(contains(claim_message(example_of(found), tensors_of(olmoe, example_of(olmoe)), found),
                 "66 tensors without a row (model.layers.0.mlp.gate.weight"));
}

TEST_CASE("all faults of a checkpoint are listed at once") {
  const Family& mixtral = family_named("mixtral");
  const Config config = example_of("mixtral");
  std::vector<TensorInfo> tensors = tensors_of(mixtral, config);
  CHECK(claim_message(config, tensors, mixtral) == "");
  drop(tensors, "model.layers.2.self_attn.v_proj.weight");
  drop(tensors, "lm_head.weight");
  expand("model.layers.3.input_layernorm.weight", {24}, tensors);
  expand("model.layers.01.input_layernorm.weight", {24}, tensors);
  expand("model.layers.0.block_sparse_moe.experts.5.w1.weight", {40, 24}, tensors);
  tensors[0].shape = {61, 25};
  const std::string message = claim_message(config, tensors, mixtral);
  CHECK(contains(message,
                 "[family] headers does not fit converters/mixtral.cpp (form 'per expert'): 3 "
                 "tensors without a row ("));
  CHECK(contains(message,
                 "model.layers.3.input_layernorm.weight, model.layers.01.input_layernorm.weight, "
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
  const Config plain = example_of("qwen3_moe", R"({"tie_word_embeddings": true})");
  std::vector<TensorInfo> tensors = tensors_of(qwen, plain);
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
      example_of("qwen3_moe", R"({"tie_word_embeddings": true, "attention_bias": true})");
  CHECK(contains(claim_message(biased, tensors, qwen),
                 "15 tensors missing (model.layers.0.self_attn.q_proj.bias, "));
  CHECK(claim_message(biased, tensors_of(qwen, biased, 0, true), qwen) == "");
}

TEST_CASE("tensors of the pool are left to it, where there is one") {
  const Family& mixtral = family_named("mixtral");
  const std::string tied = R"({"tie_word_embeddings": true})";
  const Config source = example_of("mixtral", tied);
  const Config moue =
      example_of("mixtral", R"({"tie_word_embeddings": true, "moue": {"version": 1}})");
  std::vector<TensorInfo> tensors = tensors_of(mixtral, source);
  expand("moue.pool_bias", {20}, tensors);
  const Checkpoint checkpoint = headers_only(moue, tensors);
  CHECK(claim(checkpoint, mixtral).of_tensors().back().row == nullptr);
  CHECK(
      contains(claim_message(source, tensors, mixtral), "1 tensor without a row (moue.pool_bias)"));
}

TEST_CASE("an unknown architecture is told what is known") {
  const auto said = [](const std::string& patch) {
    return message_of([&] { family_of(example_of("mixtral", patch)); });
  };
  const std::string message = said(R"({"architectures": ["MixtralForCausalLN"]})");
  CHECK(message.starts_with(
      "[family] pico/config.json answers to 'MixtralForCausalLN', which no file in converters/ "
      "claims; known: DbrxForCausalLM, "));
  CHECK(contains(message, "Qwen3MoeForCausalLM; did you mean MixtralForCausalLM?"));
  CHECK(contains(said(R"({"architectures": null})"), "answers to no architecture"));
}

TEST_CASE("a MoUE is of its source's family") {
  const Config moue = example_of("mixtral", R"({"architectures": ["MoUEForCausalLM"],
    "moue": {"base_architectures": ["Qwen3MoeForCausalLM"]}})");
  CHECK(family_of(moue).name == "qwen3_moe");
}
