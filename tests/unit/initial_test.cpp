// Initial weights: every family's tensors as its reader wants them, drawn by seed, name and place.
#include "moue/initial.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "checkpoint/manifest.h"
#include "core/normal.h"
#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/inspect.h"
#include "moue/validate.h"
#include "support/layouts.h"
#include "support/messages.h"
#include "support/scratch.h"

namespace moue {
namespace {

using namespace test;
namespace fs = std::filesystem;

Config config_of(const std::string& folder, const std::string& patch = "{}") {
  auto json = Config::read(fs::path(folder) / "config.json").json();
  json.merge_patch(nlohmann::ordered_json::parse(patch));
  return Config(json, "config.json");
}

fs::path initial(const ScratchDir& scratch, const std::string& name, const fs::path& config,
                 int64_t seed = 0, uint64_t shard_size = 5'000'000'000) {
  write_initial(config, scratch / name, {seed, shard_size});
  return scratch / name;
}

std::map<std::string, std::string> shapes_of(const fs::path& directory) {
  std::map<std::string, std::string> shapes;
  const Checkpoint checkpoint = open_checkpoint(directory);
  for (const TensorInfo& tensor : checkpoint.tensors())
    shapes[tensor.name] = shape_text(tensor.shape);
  return shapes;
}

std::vector<double> values_of(const fs::path& directory, const std::string& name) {
  const Checkpoint checkpoint = open_checkpoint(directory);
  return checkpoint.values(checkpoint.at(name));
}

double deviation_of(const std::vector<double>& values) {
  double sum = 0, squares = 0;
  for (const double value : values) sum += value, squares += value * value;
  const auto n = static_cast<double>(values.size());
  return std::sqrt(squares / n - sum / n * (sum / n));
}

}  // namespace

TEST_CASE("initial weights of every family are what its reader wants", "[unit][initial]") {
  for (const std::string& folder : family_folders()) {
    INFO(folder);
    const ScratchDir scratch;
    const fs::path made = initial(scratch, "init", folder);
    const Checkpoint checkpoint = open_checkpoint(made);
    const Family& family = family_of(checkpoint.config());
    const Claims claims = claim(checkpoint, family);
    CHECK_FALSE(claims.is_packed());
    // The recorded model of the family has the same tensors, but for those that are left aside.
    const Checkpoint recorded = open_checkpoint(folder);
    const Claims known = claim(recorded, family);
    if (known.form() == claims.form()) {
      auto wanted = shapes_of(folder);
      for (size_t i = 0; i < recorded.tensors().size(); ++i) {
        const Row* row = known.of_tensors()[i].row;
        const bool tied = row->role == Role::OutputHead && family.spec(recorded.config()).tied_head;
        if (row->role == Role::Ignored || tied) wanted.erase(recorded.tensors()[i].name);
      }
      CHECK(shapes_of(made) == wanted);
    }
    CHECK(validate_directory(made).passed());
    CHECK(inspect(checkpoint, family).passed());
  }
}

TEST_CASE("seed, name and place decide every number, and nothing else", "[unit][initial]") {
  const ScratchDir scratch;
  const std::string folder = "tests/golden/families/mixtral";
  const TensorDigests first = digests_of(initial(scratch, "a", folder, 7));
  CHECK(digests_of(initial(scratch, "b", folder, 7)) == first);
  CHECK(digests_of(initial(scratch, "c", folder, 7, 4096)) == first);
  CHECK(open_checkpoint(scratch / "c").files().size() > 5);
  const TensorDigests other = digests_of(initial(scratch, "d", folder, 8));
  int64_t differing = 0, drawn = 0;
  for (const auto& [name, digest] : first) {
    differing += other.at(name) != digest;
    drawn += name.find("norm") == std::string::npos;
  }
  CHECK(differing == drawn);
  std::vector<float> wanted(10);
  const std::string name = "model.layers.1.block_sparse_moe.experts.3.w2.weight";
  fill_normal(wanted, 7, name, 0.02, 100);
  const std::vector<double> seen = values_of(scratch / "c", name);
  CHECK(std::equal(wanted.begin(), wanted.end(), seen.begin() + 100));
  // Fewer layers: what both models have is the same.
  scratch.write("config.json", config_of(folder, R"({"num_hidden_layers": 2})").text());
  const TensorDigests small = digests_of(initial(scratch, "e", scratch / "config.json", 7));
  CHECK(small.size() < first.size());
  for (const auto& [tensor, digest] : small) CHECK(first.at(tensor) == digest);
}

TEST_CASE("deviation, gains, biases and types are the config's", "[unit][initial]") {
  const ScratchDir scratch;
  const std::string folder = "tests/golden/families/gpt_oss";
  scratch.write("config.json", config_of(folder, R"({"initializer_range": 0.3, "dtype": "bfloat16",
    "quantization_config": {"quant_method": "mxfp4"}})")
                                   .text());
  const fs::path made = initial(scratch, "init", scratch / "config.json");
  const Checkpoint checkpoint = open_checkpoint(made);
  CHECK_FALSE(checkpoint.config().has("quantization_config"));
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    CAPTURE(tensor.name);
    CHECK(tensor.dtype == Dtype::BF16);
    const std::vector<double> values = checkpoint.values(tensor);
    const bool gain = tensor.name.find("norm") != std::string::npos;
    const bool router_bias = tensor.name.ends_with("router.bias");
    const bool bias = tensor.name.ends_with("bias") && !router_bias;
    if (gain || bias) {
      CHECK(std::ranges::all_of(values, [&](double v) { return v == (gain ? 1.0 : 0.0); }));
    } else if (values.size() > 500) {
      CHECK(deviation_of(values) == Approx(0.3).epsilon(0.1));
    } else {
      CHECK(deviation_of(values) > 0.02);
    }
  }
  const fs::path corrected = initial(scratch, "corrected", "tests/golden/families/deepseek_v3");
  for (const double value : values_of(corrected, "model.layers.1.mlp.gate.e_score_correction_bias"))
    CHECK(value == 0);
}

TEST_CASE("other files are carried along, weights and their card are not", "[unit][initial]") {
  const ScratchDir scratch;
  const fs::path made = initial(scratch, "init", "examples/tiny-mixtral");
  CHECK(file_text(made / "tokenizer.json") == file_text("examples/tiny-mixtral/tokenizer.json"));
  CHECK_FALSE(fs::exists(made / "README.md"));
  CHECK(open_checkpoint(made).file_names() == std::vector<std::string>{"model.safetensors"});
  CHECK(open_checkpoint(made).config().text() ==
        Config::read("examples/tiny-mixtral/config.json").text());
}

TEST_CASE("initial weights that stand are taken or refused", "[unit][initial]") {
  const ScratchDir scratch;
  const std::string folder = "tests/golden/families/olmoe";
  const fs::path made = initial(scratch, "init", folder, 3);
  const std::string before = file_text(made / "moue-manifest.json");
  initial(scratch, "init", folder, 3);
  CHECK(file_text(made / "moue-manifest.json") == before);
  CHECK_THAT(message_of([&] { initial(scratch, "init", folder, 4); }),
             Catch::Contains("[initial] " + made.string() + " stands and was drawn with"));
  CHECK_THAT(message_of([&] { initial(scratch, "init", "tests/golden/families/mixtral", 3); }),
             Catch::Contains("stands and is of another config; remove it"));
  fs::remove(made / "model.safetensors");
  CHECK_THAT(message_of([&] { initial(scratch, "init", folder, 3); }),
             Catch::Contains("model.safetensors"));
}

TEST_CASE("configs from which nothing can be drawn", "[unit][initial]") {
  const ScratchDir scratch;
  const auto fault = [&](const std::string& patch, const std::string& folder) {
    scratch.write("config.json", config_of(folder, patch).text());
    return message_of([&] { write_initial(scratch / "config.json", scratch / "init", {}); });
  };
  const std::string mixtral = "tests/golden/families/mixtral";
  CHECK_THAT(fault(R"({"dtype": "int8"})", mixtral),
             Catch::Contains("dtype is 'int8', wanted float32, bfloat16 or float16"));
  CHECK_THAT(fault(R"({"initializer_range": -1})", mixtral),
             Catch::Contains("initializer_range is -1, wanted a number above 0"));
  CHECK_THAT(fault("{}", "tests/golden/moue/aligned/model"),
             Catch::Contains("is of a MoUE, wanted an ordinary model's"));
  CHECK_THAT(fault(R"({"architectures": ["FooForCausalLM"]})", mixtral),
             Catch::Contains("FooForCausalLM"));
  CHECK_FALSE(fs::exists(scratch / "init"));
}

}  // namespace moue
