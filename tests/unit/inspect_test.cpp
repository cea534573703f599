// inspect: sizes, roles, layers and shards of real checkpoints, and of a MoUE its pool.
#include "moue/inspect.h"

#include "moue/pool.h"
#include "support/families.h"
#include "support/headers_only.h"
#include "support/scratch.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <stdexcept>

using namespace moue;
using moue::test::contains;
using moue::test::message_of;

namespace {

Report inspected(const std::filesystem::path& model) {
  const Checkpoint source = open_checkpoint(model);
  return inspect(source, family_of(source.config()));
}

template <class T>
T fact(const Report& report, const std::string& key) {
  for (const Fact& fact : report.facts) {
    if (fact.key == key) return std::get<T>(fact.value);
  }
  throw std::logic_error("no fact " + key);
}

const Table& table(const Report& report, const std::string& key) {
  for (const Table& table : report.tables) {
    if (table.key == key) return table;
  }
  throw std::logic_error("no table " + key);
}

int64_t whole(const Value& value) { return std::get<int64_t>(value); }

int64_t column_sum(const Table& table, size_t column) {
  int64_t sum = 0;
  for (const auto& row : table.rows) sum += whole(row[column]);
  return sum;
}

}  // namespace

TEST_CASE("a small Mixtral, counted by hand") {
  const Report report = inspected("examples/tiny-mixtral");
  const int64_t attention = 2 * 128 * 128 + 2 * 64 * 128, expert = 3 * 128 * 160;
  const int64_t rest = 8 * (attention + 8 * 128 + 2 * 128) + 2 * 2048 * 128 + 128;
  CHECK(fact<std::string>(report, "family") == "mixtral");
  CHECK(fact<std::string>(report, "architecture") == "MixtralForCausalLM");
  CHECK(fact<std::string>(report, "kind") == "MoE");
  CHECK(fact<int64_t>(report, "parameters") == rest + 64 * expert);
  CHECK(fact<int64_t>(report, "active_parameters") == rest + 16 * expert);
  CHECK(fact<int64_t>(report, "shards") == 3);
  CHECK(fact<int64_t>(report, "tensors") == column_sum(table(report, "roles"), 1));
  CHECK(fact<int64_t>(report, "tensors") == column_sum(table(report, "shards"), 1));
  CHECK(fact<int64_t>(report, "bytes") == column_sum(table(report, "roles"), 4));
  CHECK(column_sum(table(report, "roles"), 2) == fact<int64_t>(report, "parameters"));
  CHECK(table(report, "layers").rows.size() == 8);
  CHECK(whole(table(report, "layers").rows[3][5]) == attention + 8 * 128 + 2 * 128 + 8 * expert);
  CHECK(report.warnings.empty());
}

TEST_CASE("dense layers, windows and a tied head are told") {
  const Report qwen = inspected("tests/golden/families/qwen3_moe");
  const Table& layers = table(qwen, "layers");
  REQUIRE(layers.rows.size() == 4);
  CHECK(std::get<std::string>(layers.rows[0][2]) == "dense");
  CHECK(whole(layers.rows[0][4]) == 56);
  CHECK(std::get<std::string>(layers.rows[1][2]) == "MoE");
  CHECK(whole(layers.rows[1][3]) == 7);
  CHECK(fact<bool>(qwen, "tied_head"));
  CHECK(std::get<std::string>(layers.rows[1][1]) == "full");
  const Report sliding = inspected("tests/golden/families/mixtral_sliding_tied");
  CHECK(std::get<std::string>(table(sliding, "layers").rows[2][1]) == "window 5");
}

TEST_CASE("how a model routes and attends is told in words") {
  const auto told = [](const char* name, const char* key) {
    return fact<std::string>(inspected(std::string("tests/golden/families/") + name), key);
  };
  CHECK(told("mixtral", "router") == "softmax, top 2, renormalised");
  CHECK(told("mixtral", "attention") == "grouped, 6 heads of 8, 2 key/value");
  CHECK(told("mixtral", "form") == "per expert");
  CHECK(told("mixtral", "packing") == "none");
  CHECK(told("mixtral", "shared_experts") == "none");
  CHECK(told("qwen2_moe", "shared_experts") == "28 wide, gated");
  CHECK(told("qwen2_moe", "attention") == "grouped, 6 heads of 4, 2 key/value, biases of q, k, v");
  CHECK(told("deepseek_v3", "shared_experts") == "20 wide");
  CHECK(
      told("deepseek_v3", "router") ==
      "sigmoid with a correction of the choice, top 3, from the best 2 of 4 groups, renormalised, "
      "times 2.5, logits in float32");
  CHECK(told("deepseek_v3", "attention") ==
        "latent, 3 heads of 12, values of 6, rank 14, queries 10");
  CHECK(told("deepseek_v2_lite", "attention") == "latent, 3 heads of 12, values of 6, rank 14");
  CHECK(told("deepseek_v2", "router") ==
        "softmax, top 3, from the best 2 of 4 groups, times 1.7, logits in float32");
  CHECK(told("phimoe", "router") == "SparseMixer, top 2, jitter 0.01, scores in the logits' dtype");
  CHECK(told("granitemoe", "router") ==
        "softmax over the chosen, top 2, gates in the logits' dtype");
  CHECK(told("gpt_oss", "router") ==
        "softmax over the chosen, logits biased, top 2, scores in the logits' dtype");
  CHECK(told("gpt_oss", "attention") == "grouped, 6 heads of 8, 2 key/value, sinks, biases");
  CHECK(told("gpt_oss", "form") == "transposed");
  CHECK(told("gpt_oss", "rope") == "yarn, times 32, theta 150000");
  CHECK(told("glm4_moe", "rope") == "plain, theta 10000, 4 of 8 channels");
  CHECK(told("minimax", "attention") ==
        "linear in 2 layers, grouped in 2 layers, 6 heads of 8, 2 key/value");
  CHECK(told("jetmoe", "attention") == "experts, 6 heads of 8, 3 key/value");
  CHECK(told("dbrx", "attention") == "grouped, 6 heads of 4, 2 key/value, limited to 1.5");
  const Report minimax = inspected("tests/golden/families/minimax");
  CHECK(std::get<std::string>(table(minimax, "layers").rows[0][1]) == "linear");
  CHECK(std::get<std::string>(table(minimax, "layers").rows[1][1]) == "full");
}

TEST_CASE("packed models and layers for further tokens are told") {
  const auto headers = [](const char* name) {
    const test::Released list = test::released(name);
    return inspect(test::headers_only(list.config, list.tensors), family_of(list.config));
  };
  const Report deepseek = headers("deepseek_v3");
  CHECK(fact<std::string>(deepseek, "packing") == "FP8, factors of blocks");
  CHECK(fact<int64_t>(deepseek, "extra_layers") == 1);
  CHECK(fact<int64_t>(deepseek, "parameters") == 671026419200);
  const Report gpt = headers("gpt_oss");
  CHECK(fact<std::string>(gpt, "packing") == "MXFP4, experts");
  CHECK(fact<std::string>(gpt, "form") == "MXFP4");
  CHECK(fact<int64_t>(gpt, "parameters") == 20914757184);
}

TEST_CASE("what each family supports is told from its own tables") {
  const Report report = families_report();
  const Table& families = table(report, "families");
  REQUIRE(families.rows.size() == moue::families().size());
  const auto cell = [&](const std::string& family, size_t column) {
    for (const auto& row : families.rows) {
      if (std::get<std::string>(row[0]) == family) return std::get<std::string>(row[column]);
    }
    throw std::logic_error("no family " + family);
  };
  CHECK(cell("qwen3_moe", 1) == "Qwen3MoeForCausalLM");
  CHECK(cell("qwen3_moe", 2) == "per expert, fused");
  CHECK(cell("qwen3_moe", 3) ==
        "softmax, gates in the logits' dtype, renormalised as norm_topk_prob says");
  CHECK(cell("mixtral", 3) == "softmax, renormalised");
  CHECK(cell("deepseek_v2", 3) == "softmax, from the best groups, logits in float32");
  CHECK(cell("deepseek_v3", 3) ==
        "sigmoid with a correction of the choice, from the best groups, logits in float32, "
        "renormalised as norm_topk_prob says");
  CHECK(cell("gpt_oss", 2) == "transposed, MXFP4");
  CHECK(cell("minimax", 4) == "linear, grouped");
  CHECK(cell("minimax_m2", 5) == "plain, a part of each head");
  CHECK(contains(cell("glm4_moe", 6), "dense layers, shared experts, layers for further tokens"));
}

TEST_CASE("docs/families.md is what the program prints") {
  INFO("renew it: build/core/moue --families_reference > docs/families.md");
  CHECK(test::file_text("docs/families.md") == families_reference());
}

TEST_CASE("a MoUE also shows its pool") {
  const Report report = inspected("tests/golden/moue/ring_stride/model");
  CHECK(fact<std::string>(report, "kind") == "MoUE");
  CHECK(fact<std::string>(report, "family") == "mixtral");
  CHECK(fact<std::string>(report, "state") == "opened");
  CHECK(fact<int64_t>(report, "slots_max") == 30);
  CHECK(table(report, "slots").rows.size() == 6);
  const int64_t added = 6 * (25 * 24 + 3 * 25 + 7) + 2 * 30 * 7 + 7 + 30;
  CHECK(fact<int64_t>(report, "parameters") ==
        fact<int64_t>(inspected("tests/golden/moue/ring_stride/source"), "parameters") + added);
}

TEST_CASE("a pool that its checkpoint does not hold is refused, all faults at once") {
  const Checkpoint good = open_checkpoint("tests/golden/moue/aligned/model");
  const Family& family = family_of(good.config());
  const auto refused = [&](auto&& edit) {
    std::vector<TensorInfo> tensors = good.tensors();
    edit(tensors);
    const Checkpoint changed = test::headers_only(good.config(), tensors);
    const Pool pool = read_pool(good.config());
    return message_of([&] { check_pool_fits(pool, family.spec(good.config()), changed); });
  };
  const auto named = [](std::vector<TensorInfo>& tensors, const std::string& name) -> TensorInfo& {
    for (TensorInfo& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    throw std::logic_error("no tensor " + name);
  };
  CHECK(refused([](auto&) {}) == "");
  const std::string message = refused([&](auto& tensors) {
    named(tensors, "moue.pool_bias").name = "moue.pool_bias_2";
    named(tensors, "moue.layers.3.router.bias").shape = {6};
    named(tensors, "moue.trajectory.key").dtype = Dtype::BF16;
  });
  CHECK(contains(message, "moue.layers.3.router.bias is F32 [6], wanted F32 [5]"));
  CHECK(contains(message, "moue.trajectory.key is BF16 [30, 7], wanted F32 [30, 7]"));
  CHECK(contains(message, "moue.pool_bias is missing"));
  CHECK(contains(message, "1 tensor under 'moue.' that the pool does not name"));
  ModelSpec other = family.spec(good.config());
  other.experts = 6;
  other.moe[2] = false;
  const std::string spec =
      message_of([&] { check_pool_fits(read_pool(good.config()), other, good); });
  CHECK(contains(spec, "experts_per_layer is 5, wanted the family's 6"));
  CHECK(contains(spec, "moe_layers are [0, 1, 2, 3, 4, 5], wanted the family's [0, 1, 3, 4, 5]"));
}

TEST_CASE("ignored tensors are named") {
  const Checkpoint source = open_checkpoint("tests/golden/families/mixtral");
  std::vector<TensorInfo> tensors = source.tensors();
  TensorInfo buffer;
  buffer.name = "model.layers.1.self_attn.rotary_emb.inv_freq";
  buffer.shape = {4};
  tensors.push_back(buffer);
  const Report report =
      inspect(test::headers_only(source.config(), tensors), family_of(source.config()));
  REQUIRE(report.warnings.size() == 1);
  CHECK(report.warnings[0] == "1 tensor ignored: model.layers.1.self_attn.rotary_emb.inv_freq");
  CHECK(fact<int64_t>(report, "parameters") ==
        fact<int64_t>(inspected("tests/golden/families/mixtral"), "parameters"));
}
