// Models that are not in transformers' safetensors form: PyTorch files, Mistral's consolidated
// ones, Hugging Face's caches. Each is the same checkpoint.
#include "moue/checkpoint.h"

#include "moue/convert.h"
#include "moue/inspect.h"
#include "moue/plan.h"
#include "moue/validate.h"
#include "support/consolidated.h"
#include "support/files.h"
#include "support/messages.h"
#include "support/pickles.h"
#include "support/scratch.h"
#include "support/zip_file.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <functional>

namespace moue {
namespace {

namespace fs = std::filesystem;
using test::ConsolidatedForm;
using test::message_of;
using test::Names;
using test::ScratchDir;

constexpr const char* kTiny = "examples/tiny-mixtral";

// Names of tensors that differ in any way.
std::vector<std::string> differences(const Checkpoint& a, const Checkpoint& b) {
  std::vector<std::string> names;
  for (const TensorInfo& tensor : a.tensors()) {
    const TensorInfo* other = b.find(tensor.name);
    if (other == nullptr || other->dtype != tensor.dtype || other->shape != tensor.shape ||
        a.read(tensor) != b.read(*other)) {
      names.push_back(tensor.name);
    }
  }
  if (a.tensors().size() != b.tensors().size()) names.push_back("another number of tensors");
  return names;
}

// What refuses the opening, without the directory.
std::string refusal(const fs::path& directory) {
  std::string message = message_of([&] { open_checkpoint(directory); });
  const size_t at = message.find(directory.native());
  return at == message.npos ? message : message.erase(at, directory.native().size());
}

void change_json(const fs::path& file, const std::function<void(nlohmann::ordered_json&)>& change) {
  auto json = nlohmann::ordered_json::parse(test::file_text(file));
  change(json);
  test::write_text(file, json.dump());
}

}  // namespace

TEST_CASE("a model of PyTorch files is the model of safetensors", "[forms]") {
  const ScratchDir scratch;
  const Checkpoint source = open_checkpoint(kTiny);
  for (const int files : {1, 3}) {
    const fs::path to = scratch / std::to_string(files);
    test::write_pytorch(source, files, to);
    const Checkpoint model = open_checkpoint(to);
    CHECK(model.files().size() == static_cast<size_t>(files));
    CHECK_FALSE(model.is_plain());
    CHECK(differences(source, model).empty());
    CHECK(inspect(model, family_of(model.config())).facts.size() ==
          inspect(source, family_of(source.config())).facts.size());
  }
  CHECK(source.is_plain());
}

TEST_CASE("PyTorch files are converted by packing, not by linking", "[forms]") {
  const ScratchDir scratch;
  test::write_pytorch(open_checkpoint("tests/golden/families/mixtral"), 2, scratch / "model");
  const Checkpoint model = open_checkpoint(scratch / "model");
  const Plan plan = make_plan(model, family_of(model.config()), nullptr, {});
  CHECK_THAT(message_of([&] { convert(model, plan, nullptr, scratch / "out", ConvertOptions{}); }),
             Catch::EndsWith("is not in safetensors' form, whose files alone can be linked; add "
                             "--layout packed"));
  CHECK_FALSE(fs::exists(scratch / "out"));
  ConvertOptions options;
  options.layout = "packed";
  convert(model, plan, nullptr, scratch / "out", options);
  const Checkpoint result = open_checkpoint(scratch / "out");
  for (const TensorInfo& tensor : model.tensors()) {
    INFO(tensor.name);
    CHECK(result.read(result.at(tensor.name)) == model.read(tensor));
  }
}

TEST_CASE("a damaged storage stops a conversion and a validation", "[forms]") {
  const ScratchDir scratch;
  const Checkpoint source = open_checkpoint("tests/golden/families/mixtral");
  test::write_pytorch(source, 1, scratch / "model");
  const Checkpoint good = open_checkpoint(scratch / "model");
  const Plan plan = make_plan(good, family_of(good.config()), nullptr, {});
  const TensorInfo& down = good.at("model.layers.1.block_sparse_moe.experts.3.w2.weight");
  std::string bytes = test::file_text(scratch / "model/pytorch_model.bin");
  bytes[down.offset + 9] ^= 1;
  test::write_text(scratch / "model/pytorch_model.bin", bytes);
  const Checkpoint bad = open_checkpoint(scratch / "model");
  ConvertOptions options;
  options.layout = "packed";
  CHECK_THAT(message_of([&] { convert(bad, plan, nullptr, scratch / "out", options); }),
             Catch::Contains("the file is damaged"));
  CHECK_FALSE(fs::exists(scratch / "out"));
}

TEST_CASE("a consolidated Mixtral is the model of transformers", "[forms]") {
  const ScratchDir scratch;
  const Checkpoint source = open_checkpoint(kTiny);
  int number = 0;
  for (const ConsolidatedForm& form : std::vector<ConsolidatedForm>{{Names::EachExpert, false, 1},
                                                                    {Names::EachExpert, true, 1},
                                                                    {Names::Stacked, true, 1},
                                                                    {Names::Stacked, true, 3},
                                                                    {Names::Stacked, false, 2}}) {
    const fs::path to = scratch / std::to_string(number++);
    test::write_consolidated(source, form, to);
    test::write_text(to / "tokenizer.model", "t");
    const Checkpoint model = open_checkpoint(to);
    CHECK(differences(source, model).empty());
    CHECK(model.files().size() == static_cast<size_t>(form.files));
    CHECK(model.other_files() == std::vector<std::string>{"tokenizer.model"});
    const Family& family = family_of(model.config());
    CHECK(family.name == "mixtral");
    CHECK(family.spec(model.config()).rope.theta == family.spec(source.config()).rope.theta);
    CHECK(claim(model, family).of_tensors().size() == source.tensors().size());
  }
}

TEST_CASE("queries and keys in another order of rows are other queries and keys", "[forms]") {
  const ScratchDir scratch;
  const Checkpoint source = open_checkpoint(kTiny);
  ConsolidatedForm form;
  form.rotated = false;
  test::write_consolidated(source, form, scratch / "model");
  const auto names = differences(source, open_checkpoint(scratch / "model"));
  CHECK(names.size() == 16);
  CHECK(std::ranges::all_of(names, [](const std::string& name) {
    return name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight");
  }));
}

TEST_CASE("what is no consolidated Mixtral says why", "[forms]") {
  const ScratchDir scratch;
  const Checkpoint source = open_checkpoint("tests/golden/families/mixtral");
  const fs::path model = scratch / "model", params = model / "params.json";
  test::write_consolidated(source, {Names::Stacked, true, 2}, model);
  CHECK(refusal(model) == "");
  const std::string good = test::file_text(params);
  const auto with = [&](const std::function<void(nlohmann::ordered_json&)>& change) {
    change_json(params, change);
    const std::string message = refusal(model);
    test::write_text(params, good);
    return message;
  };
  CHECK_THAT(with([](auto& json) {
               json["quantization"] = {{"qformat", "fp8"}};
             }),
             Catch::EndsWith("a key is not one of a Mixtral: 'quantization'"));
  CHECK_THAT(with([](auto& json) { json.erase("moe"); }), Catch::Contains("moe.num_experts"));
  CHECK_THAT(with([](auto& json) { json["head_dim"] = 7; }),
             Catch::EndsWith("head_dim is 7, wanted an even one"));
  CHECK_THAT(with([](auto& json) { json["dim"] = -24; }),
             Catch::Contains("a size is -24, wanted 1 to"));
  CHECK_THAT(with([](auto& json) { json["hidden_dim"] = 41; }),
             Catch::Contains("'layers.0.block_sparse_moe.w1' is [200, 24], params.json asks for "
                             "[205, 24]"));
  CHECK_THAT(with([](auto& json) { json["n_heads"] = 5; }),
             Catch::Contains("'layers.0.attention.wq.weight' is [48, 24], params.json asks for "
                             "[40, 24]"));
  fs::copy_file(model / "consolidated.00.pth", model / "consolidated.02.pth");
  CHECK_THAT(refusal(model), Catch::Contains("in two shards: "));
  fs::remove(model / "consolidated.02.pth");
  const std::vector<std::byte> four(4);
  test::write_text(model / "consolidated.02.pth",
                   test::torch_file(std::vector<TensorView>{
                       {"layers.0.attention.wq.lora", Dtype::F32, {1}, four},
                       {"layers.00.attention.wq.weight", Dtype::F32, {1}, four}}));
  CHECK(refusal(model) ==
        "[checkpoint] : 2 tensors of no Mixtral: 'layers.0.attention.wq.lora', "
        "'layers.00.attention.wq.weight'");
  test::write_text(model / "consolidated.02.pth",
                   test::torch_file(std::vector<TensorView>{
                       {"layers.0.feed_forward.gate.weight", Dtype::F32, {1}, four}}));
  CHECK(refusal(model) ==
        "[checkpoint] : 1 tensor in both generations of names: "
        "'model.layers.0.block_sparse_moe.gate.weight'");
  fs::remove(model / "consolidated.00.pth");
  fs::remove(model / "consolidated.01.pth");
  fs::remove(model / "consolidated.02.pth");
  CHECK(refusal(model) ==
        "[checkpoint]  has neither model.safetensors nor model.safetensors.index.json");
}

TEST_CASE("a cache of Hugging Face is its snapshot", "[forms]") {
  const ScratchDir scratch;
  const fs::path cache = scratch / "models--org--name";
  const auto snapshot = [&](const std::string& revision) {
    const fs::path to = cache / "snapshots" / revision;
    fs::create_directories(to);
    fs::create_directories(cache / "blobs");
    for (const auto& file : fs::directory_iterator("tests/golden/families/mixtral")) {
      const std::string name = file.path().filename().native();
      fs::copy_file(file.path(), cache / "blobs" / (revision + name));
      fs::create_symlink("../../blobs/" + revision + name, to / name);
    }
    return to;
  };
  const fs::path first = snapshot("1111");
  const Checkpoint source = open_checkpoint("tests/golden/families/mixtral");
  CHECK(differences(source, open_checkpoint(first)).empty());
  CHECK(differences(source, open_checkpoint(cache)).empty());
  CHECK(open_checkpoint(cache).directory() == first);
  const fs::path second = snapshot("2222");
  CHECK(refusal(cache) ==
        "[checkpoint] : refs/main is missing, snapshots/ holds 1111, 2222; name one of them");
  fs::create_directory(cache / "refs");
  test::write_text(cache / "refs/main", "2222\n");
  CHECK(open_checkpoint(cache).directory() == second);
  test::write_text(cache / "refs/main", "3333");
  CHECK(refusal(cache) ==
        "[checkpoint] : refs/main names '3333', snapshots/ holds 1111, 2222; name one of them");
  test::write_text(cache / "refs/main", "../../etc");
  CHECK(refusal(cache) ==
        "[checkpoint] /refs/main says '../../etc', wanted the name of a snapshot");
  fs::remove(cache / "blobs/2222config.json");
  CHECK_THAT(refusal(second), Catch::Contains("which is not there"));
}

TEST_CASE("storages behind four gigabytes are found", "[forms]") {
  const ScratchDir scratch;
  // Storage "0" is a hole that nobody reads, storage "1" lies behind it.
  constexpr uint64_t kHole = 4'600'000'000;
  const std::string pickle = test::pickled_dict(
      test::pickled_text("far") +
      test::pickled_tensor(0, {6}, {1}, test::pickled_storage("FloatStorage", "1", 6)));
  const fs::path file = scratch / "model.bin";
  test::write_zip(file, {{"a/data.pkl", pickle},
                         {.name = "a/data/0", .data = "", .hole = kHole},
                         {"a/data/1", std::string(24, 'f')}});
  CHECK(fs::file_size(file) > kHole);
  const WeightFile weights(file);
  const TensorInfo& far = weights.at("far");
  CHECK(far.offset > kHole);
  const std::vector<std::byte> seen = weights.read(far);
  CHECK(std::string(reinterpret_cast<const char*>(seen.data()), seen.size()) ==
        std::string(24, 'f'));
}

}  // namespace moue
