// Forms: twins of one checkpoint as releases write them, and what only looks like one.
#include <catch2/catch.hpp>
#include <map>
#include <regex>

#include "moue/error.h"
#include "support/families.h"
#include "support/headers_only.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;

namespace {

std::string replaced(const std::string& text, const char* pattern, const char* to) {
  return std::regex_replace(text, std::regex(pattern), to);
}

// The names and shapes that transformers 5 writes with save_original_format=False, by the rules of
// its conversion_mapping.py.
std::vector<TensorInfo> fused_twin(const Family& family, const std::vector<TensorInfo>& tensors) {
  static const std::regex expert(
      R"((.*\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj|w[123])\.weight)");
  std::vector<TensorInfo> result;
  std::map<std::string, TensorInfo> stacks;
  for (TensorInfo tensor : tensors) {
    tensor.name = replaced(tensor.name, R"(\.block_sparse_moe\.)", ".mlp.");
    if (family.name == "phimoe")
      tensor.name = replaced(tensor.name, R"(\.gate\.weight$)", ".router.weight");
    std::smatch match;
    if (!std::regex_match(tensor.name, match, expert)) {
      result.push_back(tensor);
      continue;
    }
    const bool down = match[3] == "down_proj" || match[3] == "w2";
    TensorInfo& stack = stacks[match[1].str() + (down ? ".down_proj" : ".gate_up_proj")];
    const int64_t experts =
        std::max<int64_t>(stack.shape.empty() ? 0 : stack.shape[0], std::stoll(match[2]) + 1);
    stack.shape = {experts, (down ? 1 : 2) * tensor.shape[0], tensor.shape[1]};
  }
  for (auto& [name, stack] : stacks) {
    stack.name = name;
    result.push_back(stack);
  }
  return result;
}

Checkpoint golden(const std::string& name) {
  return open_checkpoint("tests/golden/families/" + name);
}

std::vector<float> floats(const Checkpoint& checkpoint, const Slice& slice) {
  std::vector<float> values(static_cast<size_t>(slice.rows * slice.columns));
  read_slice(checkpoint, slice, values);
  return values;
}

// The bytes of a tensor of qwen2_moe's fused twin, put together from its source.
std::vector<std::byte> fused_bytes(const Checkpoint& source, const std::string& name) {
  if (const TensorInfo* same = source.find(name)) return source.read(*same);
  const bool down = name.ends_with(".down_proj");
  const std::string experts = name.substr(0, name.rfind('.'));
  std::vector<std::byte> result;
  for (int expert = 0; expert < 7; ++expert) {
    for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
      if (down != (std::string(part) == "down_proj")) continue;
      const auto bytes =
          source.read(source.at(experts + "." + std::to_string(expert) + "." + part + ".weight"));
      result.insert(result.end(), bytes.begin(), bytes.end());
    }
  }
  return result;
}

void check_shape(const std::optional<Slice>& slice, int64_t rows, int64_t columns) {
  REQUIRE(slice);
  CHECK(slice->rows == rows);
  CHECK(slice->columns == columns);
}

// Every expert's matrices are found, [F, D] and [D, F], whatever the form.
void check_experts(const Claims& claims, const ModelSpec& s) {
  for (const int64_t layer : s.moe_layers()) {
    for (int64_t expert = 0; expert < s.experts; ++expert) {
      check_shape(claims.slice(Role::ExpertGate, layer, expert), s.expert_width, s.width);
      check_shape(claims.slice(Role::ExpertUp, layer, expert), s.expert_width, s.width);
      check_shape(claims.slice(Role::ExpertDown, layer, expert), s.width, s.expert_width);
    }
    check_shape(claims.slice(Role::Router, layer), s.experts, s.width);
  }
}

}  // namespace

TEST_CASE("a fused twin is told by its names and has the same experts") {
  for (const char* name :
       {"mixtral", "mixtral_sliding_tied", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek_v2",
        "deepseek_v2_lite", "deepseek_v3", "phimoe", "minimax", "minimax_m2", "glm4_moe"}) {
    INFO(name);
    const Checkpoint source = golden(name);
    const Family& family = family_of(source.config());
    const ModelSpec spec = family.spec(source.config());
    const Checkpoint twin = headers_only(source.config(), fused_twin(family, source.tensors()));
    CHECK(twin.tensors().size() < source.tensors().size());
    const Claims claims = claim(twin, family);
    CHECK(claims.form() == "fused");
    check_experts(claims, spec);
    check_experts(claim(source, family), spec);
  }
}

TEST_CASE("granitemoe under its later names") {
  const Checkpoint source = golden("granitemoe");
  const Family& family = family_of(source.config());
  std::vector<TensorInfo> later = source.tensors();
  for (TensorInfo& tensor : later) {
    tensor.name = replaced(tensor.name, R"(input_linear\.weight)", "experts.gate_up_proj");
    tensor.name = replaced(tensor.name, R"(output_linear\.weight)", "experts.down_proj");
    tensor.name = replaced(tensor.name, R"(router\.layer\.weight)", "router.weight");
  }
  const Checkpoint twin = headers_only(source.config(), later);
  CHECK(claim(source, family).form() == "stacked");
  const Claims claims = claim(twin, family);
  CHECK(claims.form() == "fused");
  check_experts(claims, family.spec(source.config()));
}

TEST_CASE("stacked, transposed and packed experts are found as [out, in]") {
  for (const char* name : {"dbrx", "jetmoe", "granitemoe", "gpt_oss"}) {
    INFO(name);
    const Checkpoint source = golden(name);
    const Family& family = family_of(source.config());
    check_experts(claim(source, family), family.spec(source.config()));
  }
  const Family& gpt = family_named("gpt_oss");
  const Config config = example_of(gpt);
  const Checkpoint packed = headers_only(config, tensors_of(gpt, config, 1));
  const Claims claims = claim(packed, gpt);
  CHECK(claims.form() == "MXFP4");
  CHECK(claims.is_packed());
  check_experts(claims, gpt.spec(config));
  CHECK(claims.slice(Role::ExpertUp, 1, 2)->packing == Packing::Mxfp4);
}

TEST_CASE("a fused twin on disk has the numbers of its source") {
  const Checkpoint source = golden("qwen2_moe");
  const Family& family = family_of(source.config());
  const Claims claims = claim(source, family);
  const ScratchDir folder;
  folder.write("config.json", source.config().text());
  std::vector<std::vector<std::byte>> bytes;
  std::vector<TensorView> views;
  const std::vector<TensorInfo> tensors = fused_twin(family, source.tensors());
  for (const TensorInfo& tensor : tensors) bytes.push_back(fused_bytes(source, tensor.name));
  for (size_t i = 0; i < tensors.size(); ++i)
    views.push_back({tensors[i].name, Dtype::F32, tensors[i].shape, bytes[i]});
  write_safetensors(folder / "model.safetensors", views);
  const Checkpoint twin = open_checkpoint(folder.path());
  const Claims fused = claim(twin, family);
  CHECK(fused.form() == "fused");
  for (const int64_t layer : {0, 2, 3}) {
    for (int64_t expert = 0; expert < 7; ++expert) {
      for (const Role role : {Role::ExpertGate, Role::ExpertUp, Role::ExpertDown}) {
        const auto wanted = floats(source, claims.slice(role, layer, expert).value());
        CHECK(floats(twin, fused.slice(role, layer, expert).value()) == wanted);
        CHECK(floats(twin, fused.slice(role, layer, (expert + 1) % 7).value()) != wanted);
      }
    }
  }
}

TEST_CASE("parts of a tensor lie where the code of the family takes them") {
  const Checkpoint dbrx = golden("dbrx");
  const Claims claims = claim(dbrx, family_of(dbrx.config()));
  const std::string block = "transformer.blocks.1.";
  const auto all = [&](const std::string& name) {
    return floats(dbrx, whole_slice(dbrx.at(block + name)));
  };
  const std::vector<float> w2 = all("ffn.experts.mlp.w2");  // [E * F, D]
  const std::vector<float> down = floats(dbrx, claims.slice(Role::ExpertDown, 1, 3).value());
  bool transposed = true;
  for (int64_t d = 0; d < 24; ++d) {
    for (int64_t f = 0; f < 40; ++f)
      transposed = transposed && down[d * 40 + f] == w2[(3 * 40 + f) * 24 + d];
  }
  CHECK(transposed);
  const std::vector<float> qkv = all("norm_attn_norm.attn.Wqkv.weight");
  const auto part = [&](Role role) { return floats(dbrx, claims.slice(role, 1).value()); };
  CHECK(part(Role::Query) == std::vector<float>(qkv.begin(), qkv.begin() + 24 * 24));
  CHECK(part(Role::Key) == std::vector<float>(qkv.begin() + 24 * 24, qkv.begin() + 32 * 24));
  CHECK(part(Role::Value) == std::vector<float>(qkv.begin() + 32 * 24, qkv.end()));
}

TEST_CASE("two forms mixed are refused by what the one lacks") {
  const Family& mixtral = family_named("mixtral");
  const Config config = example_of(mixtral);
  std::vector<TensorInfo> mixed = tensors_of(mixtral, config, 0);
  for (const TensorInfo& tensor : tensors_of(mixtral, config, 1)) {
    if (contains(tensor.name, "layers.1.mlp.")) mixed.push_back(tensor);
  }
  const std::string message = claim_message(config, mixed, mixtral);
  CHECK(contains(message, "(form 'per expert'): 3 tensors without a row ("));
  CHECK(contains(message, "model.layers.1.mlp.experts.gate_up_proj"));
}

TEST_CASE("what is stored the other way round is not mistaken") {
  const auto refused = [](const char* name, const Config& config, size_t form,
                          const std::string& tensor, std::vector<int64_t> shape) {
    const Family& family = family_named(name);
    std::vector<TensorInfo> tensors = tensors_of(family, config, form);
    CHECK(claim_message(config, tensors, family) == "");
    named(tensors, tensor).shape = std::move(shape);
    return claim_message(config, tensors, family);
  };
  const char* up = "model.layers.1.mlp.experts.gate_up_proj";
  const char* down = "model.layers.1.mlp.experts.down_proj";
  CHECK(contains(refused("mixtral", example_of("mixtral"), 1, up, {5, 24, 80}),
                 "gate_up_proj is [5, 24, 80], config.json asks for [5, 80, 24]"));
  CHECK(contains(refused("mixtral", example_of("mixtral"), 1, down, {5, 40, 24}),
                 "down_proj is [5, 40, 24], config.json asks for [5, 24, 40]"));
  // gpt-oss is as wide as its experts: only the pair of gate and up shows the orientation.
  const Config square = example_of("gpt_oss", R"({"intermediate_size": 32})");
  CHECK(contains(refused("gpt_oss", square, 0, up, {5, 64, 32}),
                 "gate_up_proj is [5, 64, 32], config.json asks for [5, 32, 64]"));
  CHECK(contains(
      refused("dbrx", example_of("dbrx"), 0, "transformer.blocks.2.ffn.experts.mlp.w2", {120, 40}),
      "mlp.w2 is [120, 40], config.json asks for [200, 24]"));
  CHECK(contains(
      refused("dbrx", example_of("dbrx"), 0, "transformer.blocks.2.ffn.experts.mlp.w2", {200, 40}),
      "config.json asks for [200, 24]"));
}

TEST_CASE("an FP8 twin needs the factors of its blocks") {
  const Family& family = family_named("deepseek_v3");
  const Config fp8 = example_of(family, R"({"quantization_config": {"quant_method": "fp8",
    "weight_block_size": [16, 10]}})");
  std::vector<TensorInfo> tensors = tensors_of(family, fp8);
  std::vector<TensorInfo> scales;
  for (TensorInfo& tensor : tensors) {
    if (tensor.shape.size() != 2 || !contains(tensor.name, "proj")) continue;
    tensor.dtype = Dtype::F8E4M3;
    expand(tensor.name + "_scale_inv", {(tensor.shape[0] + 15) / 16, (tensor.shape[1] + 9) / 10},
           scales, Dtype::F32);
  }
  REQUIRE(scales.size() > 90);
  CHECK(contains(claim_message(fp8, tensors, family), "FP8 tensors without block scales ("));
  tensors.insert(tensors.end(), scales.begin(), scales.end());
  const Checkpoint twin = headers_only(fp8, tensors);
  const Claims claims = claim(twin, family);
  CHECK(claims.is_packed());
  const Slice slice = claims.slice(Role::ExpertDown, 2, 5).value();
  CHECK(slice.packing == Packing::BlockScaled);
  CHECK(slice.block_rows == 16);
  CHECK(slice.block_columns == 10);
  CHECK(slice.scale->name == slice.tensor->name + "_scale_inv");
  check_experts(claims, family.spec(fp8));
  // The same without the config's word for it, and with factors of another size.
  CHECK(contains(claim_message(example_of(family), tensors, family), "_scale_inv"));
  named(tensors, slice.scale->name).shape = {2, 1};
  CHECK(contains(claim_message(fp8, tensors, family),
                 "down_proj.weight_scale_inv is [2, 1], config.json asks for [2, 2]"));
}

TEST_CASE("layers that predict further tokens are claimed as ignored") {
  for (const char* name : {"deepseek_v3", "glm4_moe"}) {
    INFO(name);
    const Family& family = family_named(name);
    const Config config = example_of(family);
    std::vector<TensorInfo> tensors = tensors_of(family, config);
    const size_t plain = tensors.size();
    expand("model.layers.4.eh_proj.weight", {24, 48}, tensors);
    expand("model.layers.4.mlp.experts.{0-7}.gate_proj.weight", {20, 24}, tensors);
    const Checkpoint checkpoint = headers_only(config, tensors);
    const Claims claims = claim(checkpoint, family);
    for (size_t i = plain; i < tensors.size(); ++i)
      CHECK(claims.of_tensors()[i].row->role == Role::Ignored);
    expand("model.layers.5.eh_proj.weight", {24, 48}, tensors);
    CHECK(contains(claim_message(config, tensors, family),
                   "1 tensor without a row (model.layers.5.eh_proj.weight)"));
    const Config none = example_of(family, R"({"num_nextn_predict_layers": 0})");
    CHECK(contains(claim_message(none, checkpoint.tensors(), family), "9 tensors without a row ("));
  }
}

TEST_CASE("buffers of linear attention may be in the file or not") {
  const Checkpoint source = golden("minimax");
  const Family& family = family_of(source.config());
  std::vector<TensorInfo> tensors = source.tensors();
  std::erase_if(tensors, [](const TensorInfo& tensor) {
    return contains(tensor.name, "decay") || contains(tensor.name, "slope_rate");
  });
  CHECK(tensors.size() + 8 == source.tensors().size());
  CHECK(claim_message(source.config(), tensors, family) == "");
  expand("model.layers.1.self_attn.slope_rate", {6, 1, 1}, tensors);
  CHECK(contains(claim_message(source.config(), tensors, family),
                 "1 tensor without a row (model.layers.1.self_attn.slope_rate)"));
}
