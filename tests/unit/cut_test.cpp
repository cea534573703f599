// Cutting a model to some of its layers: bytes, names and config of all families.
#include <catch2/catch.hpp>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "checkpoint/manifest.h"
#include "family/cut.h"
#include "moue/error.h"
#include "support/families.h"
#include "support/files.h"
#include "support/layouts.h"
#include "support/messages.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

const fs::path kTiny = "examples/tiny-mixtral";

ConvertOptions layers(const std::string& range) {
  ConvertOptions options;
  options.layers = range;
  return options;
}

ModelSpec spec_of(const Config& config) { return family_of(config).spec(config); }

constexpr std::string_view kScale = "_scale_inv";  // of FP8: claimed like the matrix before it

const Claim& claim_of(const Checkpoint& source, const Claims& claims, const TensorInfo& tensor) {
  const bool is_scale = tensor.name.ends_with(kScale);
  const TensorInfo& matrix =
      is_scale ? source.at(tensor.name.substr(0, tensor.name.size() - kScale.size())) : tensor;
  return claims.of_tensors()[static_cast<size_t>(&matrix - source.tensors().data())];
}

// The name that the rows of the family give the tensor so many layers earlier.
std::string moved(const Checkpoint& source, const Claims& claims, const TensorInfo& tensor,
                  int64_t by) {
  const Claim& claim = claim_of(source, claims, tensor);
  if (claim.layer < 0) return tensor.name;
  const std::string name = expand_name(claim.row->name, claim.layer - by, claim.expert);
  return tensor.name.ends_with(kScale) ? name + std::string(kScale) : name;
}

// Every tensor of layers [first, last) and of none, under its new name, with its bytes.
void check_cut(const fs::path& from, int64_t first, int64_t last) {
  INFO(from.string() << " " << first << ":" << last);
  const Scratch scratch;
  const auto before = snapshot(from);
  relayout(from, scratch / "cut", layers(fmt::format("{}:{}", first, last)));
  CHECK(snapshot(from) == before);
  const Checkpoint source = open_checkpoint(from), cut = open_checkpoint(scratch / "cut");
  const Family& family = family_of(source.config());
  const Claims claims = claim(source, family);
  CHECK_NOTHROW(claim(cut, family));
  const ModelSpec was = spec_of(source.config()), is = spec_of(cut.config());
  REQUIRE(is.layers == last - first);
  CHECK(std::equal(is.moe.begin(), is.moe.end(), was.moe.begin() + first));
  const TensorDigests wanted = digests_of(from), seen = digests_of(scratch / "cut");
  size_t kept = 0;
  for (const TensorInfo& tensor : source.tensors()) {
    const int64_t layer = claim_of(source, claims, tensor).layer;
    if (layer >= 0 && (layer < first || layer >= last)) continue;
    const std::string name = moved(source, claims, tensor, first);
    INFO(name);
    REQUIRE(seen.contains(name));
    CHECK(seen.at(name) == wanted.at(tensor.name));
    ++kept;
  }
  CHECK(seen.size() == kept);
  CHECK(read_manifest(scratch / "cut").tensors.size() == wanted.size());
  // A small model like any other: it is planned and converted.
  to_moue(scratch / "cut", scratch / "moue");
}

Config cut(const Config& config, int64_t first, int64_t last) {
  return cut_config(config, family_of(config), first, last);
}

}  // namespace

TEST_CASE("tiny-mixtral cut to its first two layers, and to two in the middle") {
  check_cut(kTiny, 0, 2);
  check_cut(kTiny, 3, 5);
  const Scratch scratch;
  relayout(kTiny, scratch / "cut", layers("3:5"));
  const Manifest ledger = read_manifest(scratch / "cut");
  CHECK(ledger.tensors.at("model.layers.4.block_sparse_moe.gate.weight") ==
        "copied model.safetensors as model.layers.1.block_sparse_moe.gate.weight");
  CHECK(ledger.tensors.at("model.layers.2.block_sparse_moe.gate.weight") ==
        "dropped: layer 2 was cut off");
  CHECK(ledger.tensors.at("lm_head.weight") == "copied model.safetensors");
}

TEST_CASE("every family cut at its end and at its start") {
  for (const std::string& folder : family_folders()) {
    const ModelSpec spec = spec_of(Config::read(fs::path(folder) / "config.json"));
    check_cut(folder, 0, spec.layers - 1);
    check_cut(folder, 1, spec.layers);
  }
}

TEST_CASE("quantised models are cut as they are") {
  check_cut("tests/golden/packed/fp8", 1, 2);
  check_cut("tests/golden/packed/mxfp4", 1, 2);
}

TEST_CASE("which layers are routed follows the cut") {
  const Config qwen = example_of("qwen3_moe", R"({"num_hidden_layers": 7,
      "decoder_sparse_step": 3, "mlp_only_layers": [5]})");  // routed: 2
  CHECK(cut(qwen, 1, 4).integers("mlp_only_layers") == std::vector<int64_t>{0, 2});
  CHECK(cut(qwen, 1, 4).integer("decoder_sparse_step") == 1);
  const Config stepped = example_of("qwen3_moe", R"({"num_hidden_layers": 12,
      "decoder_sparse_step": 3, "mlp_only_layers": [5]})");  // routed: 2, 8, 11
  CHECK(cut(stepped, 3, 9).integer("decoder_sparse_step") == 3);
  CHECK(cut(stepped, 3, 9).integers("mlp_only_layers") == std::vector<int64_t>{2});
  CHECK(spec_of(cut(stepped, 3, 9)).moe_layers() == std::vector<int64_t>{5});
  const Config dense = example_of("deepseek_v3", R"({"num_hidden_layers": 6,
      "first_k_dense_replace": 2})");
  CHECK(cut(dense, 1, 4).integer("first_k_dense_replace") == 1);
  CHECK(cut(dense, 3, 6).integer("first_k_dense_replace") == 0);
  CHECK(cut(dense, 0, 3).integer("num_nextn_predict_layers") == 0);
  CHECK(cut(dense, 0, 3).integer("num_hidden_layers") == 3);
}

TEST_CASE("kinds of attention that follow from a layer's number are written out") {
  const Config oss = example_of("gpt_oss");
  REQUIRE(oss.strings("layer_types").empty());
  CHECK(cut(oss, 2, 4).strings("layer_types").empty());
  CHECK(cut(oss, 1, 3).strings("layer_types") ==
        std::vector<std::string>{"full_attention", "sliding_attention"});
  const Config minimax = example_of("minimax", R"({"layer_types": null})");
  CHECK(cut(minimax, 1, 3).strings("layer_types") ==
        std::vector<std::string>{"linear_attention", "full_attention"});
  const Config listed = example_of("minimax");
  CHECK(cut(listed, 1, 4).strings("layer_types") ==
        std::vector<std::string>{"full_attention", "linear_attention", "linear_attention"});
  const Config qwen2 = example_of("qwen2_moe");
  CHECK(spec_of(cut(qwen2, 2, 4)).attention.window == std::vector<int64_t>{0, 0});
}

TEST_CASE("cuts that leave no model are refused") {
  const Scratch scratch;
  const auto refused = [&](const fs::path& from, const ConvertOptions& options) {
    return message_of([&] { relayout(from, scratch / "out", options); });
  };
  for (const char* range : {"", "3", "2:2", "3:2", "-1:2", "0:9", "0:2:4", "a:b", "0: 2", "1:"}) {
    if (*range == '\0') continue;
    CHECK(refused(kTiny, layers(range)) ==
          fmt::format("[convert] layers is '{}', wanted FIRST:LAST with 0 <= FIRST < LAST <= 8",
                      range));
  }
  CHECK_THAT(refused("tests/golden/families/deepseek_v3", layers("0:1")),
             Contains("none of layers 0:1 is routed, wanted at least one; routed are 1, 2"));
  to_moue(kTiny, scratch / "moue");
  CHECK_THAT(refused(scratch / "moue", layers("0:2")),
             Contains("is a MoUE, whose layers share experts, wanted an ordinary model to cut"));
  ConvertOptions packed = layers("0:2");
  packed.layout = "packed";
  CHECK_THAT(refused(kTiny, packed),
             Contains("a cut is written as export, then planned and converted"));
  const Checkpoint source = open_checkpoint(kTiny);
  CHECK_THAT(message_of([&] {
               convert(source, plan_for(source), nullptr, scratch / "out", layers("0:2"));
             }),
             Contains("to which no plan applies; cut first"));
  CHECK_FALSE(fs::exists(scratch / "out"));
}
