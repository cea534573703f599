// Cases by the rule they break; what each says is recorded in tests/golden/malformed.
#include "support/malformed_models.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "checkpoint/index.h"
#include "support/loose_model.h"
#include "support/malformed.h"
#include "support/pickles.h"
#include "support/scratch.h"

namespace moue::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using namespace std::string_literals;

constexpr const char* kShard = "model-00002-of-00005.safetensors";
constexpr const char* kExpert = "model.layers.1.block_sparse_moe.experts.3.w2.weight";
constexpr const char* kRouter = "model.layers.1.block_sparse_moe.gate.weight";

// Takes the model apart and puts it together anew.
std::function<void(const fs::path&)> anew(const std::function<void(LooseModel&)>& change) {
  return [change](const fs::path& model) {
    LooseModel loose(model);
    change(loose);
    const fs::path other = model.native() + "-anew";
    loose.write(other);
    fs::remove_all(model);
    fs::rename(other, model);
  };
}

std::function<void(const fs::path&)> index_with(const std::function<void(Json&)>& change) {
  return [change](const fs::path& model) {
    Json json = Json::parse(file_text(model / kIndexFile));
    change(json);
    write_text(model / kIndexFile, json.dump());
  };
}

void reshape(LooseModel& loose, const char* name, std::vector<int64_t> shape) {
  LooseTensor& tensor = loose.at(name);
  uint64_t bytes = 4;
  for (const int64_t size : shape) bytes *= static_cast<uint64_t>(size);
  tensor.shape = std::move(shape);
  tensor.bytes.resize(bytes);
}

void rename_tensor(LooseModel& loose, const char* name, const char* to) {
  loose.at(name).name = to;
}

void keep_config_alone(const fs::path& model) {
  for (const auto& entry : fs::directory_iterator(model)) {
    if (entry.path().filename() != "config.json") fs::remove(entry.path());
  }
}

}  // namespace

std::vector<ModelCase> malformed_models() {
  const auto shard_bytes = [](auto change) {
    return [change](const fs::path& model) {
      std::string bytes = file_text(model / kShard);
      change(bytes);
      write_text(model / kShard, bytes);
    };
  };
  return {
      {"no config.json", [](const fs::path& m) { fs::remove(m / "config.json"); }},
      {"config.json is a folder",
       [](const fs::path& m) {
         fs::remove(m / "config.json");
         fs::create_directory(m / "config.json");
       }},
      {"no weights", keep_config_alone},
      {"an index without shards",
       [](const fs::path& m) {
         const std::string index = file_text(m / kIndexFile);
         keep_config_alone(m);
         write_text(m / kIndexFile, index);
       }},
      {"a shard is missing", [](const fs::path& m) { fs::remove(m / kShard); }},
      {"a shard is a folder",
       [](const fs::path& m) {
         fs::remove(m / kShard);
         fs::create_directory(m / kShard);
       }},
      {"a shard is a FIFO",
       [](const fs::path& m) {
         fs::remove(m / kShard);
         ::mkfifo((m / kShard).c_str(), 0600);
       }},
      {"a shard is a link to nowhere",
       [](const fs::path& m) {
         fs::remove(m / kShard);
         fs::create_symlink("nowhere", m / kShard);
       }},
      {"a shard is a link to a device",
       [](const fs::path& m) {
         fs::remove(m / kShard);
         fs::create_symlink("/dev/zero", m / kShard);
       }},
      {"a shard is a link to itself",
       [](const fs::path& m) {
         fs::remove(m / kShard);
         fs::create_symlink(kShard, m / kShard);
       }},
      {"a shard is empty", shard_bytes([](std::string& bytes) { bytes.clear(); })},
      {"a shard is cut off", shard_bytes([](std::string& bytes) { bytes.pop_back(); })},
      {"a shard has a byte more", shard_bytes([](std::string& bytes) { bytes += 'x'; })},
      {"two shards with one content",
       [](const fs::path& m) {
         fs::copy_file(m / "model-00001-of-00005.safetensors", m / kShard,
                       fs::copy_options::overwrite_existing);
       }},
      {"a shard named by nobody", index_with([](Json& json) {
         for (auto& [name, file] : json["weight_map"].items()) {
           if (file == kShard) file = "model-00001-of-00005.safetensors";
         }
       })},
      {"a tensor of the index is nowhere",
       index_with([](Json& json) { json["weight_map"]["more"] = kShard; })},
      {"a tensor is not in the index",
       index_with([](Json& json) { json["weight_map"].erase(kExpert); })},
      {"a tensor is in another shard", index_with([](Json& json) {
         auto& file = json["weight_map"][kExpert];
         file = file == kShard ? "model-00001-of-00005.safetensors" : kShard;
       })},
      {"the index leads out",
       index_with([](Json& json) { json["weight_map"][kExpert] = "../" + std::string(kShard); })},
      {"the index is absolute",
       index_with([](Json& json) { json["weight_map"][kExpert] = "/etc/passwd"; })},
      {"a single file that the index leaves out",
       [](const fs::path& m) { fs::copy_file(m / kShard, m / kSingleFile); }},
      {"an expert is missing", anew([](LooseModel& loose) { loose.erase(kExpert); })},
      {"an expert too many", anew([](LooseModel& loose) {
         loose.tensors.push_back(loose.at(kExpert));
         loose.tensors.back().name = "model.layers.1.block_sparse_moe.experts.5.w2.weight";
       })},
      {"an expert of another shape", anew([](LooseModel& loose) {
         reshape(loose, kExpert, {24, 41});
       })},
      {"an expert transposed", anew([](LooseModel& loose) {
         reshape(loose, kExpert, {40, 24});
       })},
      {"an expert with three dimensions", anew([](LooseModel& loose) {
         reshape(loose, kExpert, {1, 24, 40});
       })},
      {"an expert's number with a zero in front", anew([](LooseModel& loose) {
         rename_tensor(loose, kExpert, "model.layers.1.block_sparse_moe.experts.03.w2.weight");
       })},
      {"a router of four rows", anew([](LooseModel& loose) {
         reshape(loose, kRouter, {4, 24});
       })},
      {"a router of six rows", anew([](LooseModel& loose) {
         reshape(loose, kRouter, {6, 24});
       })},
      {"a router is missing", anew([](LooseModel& loose) { loose.erase(kRouter); })},
      {"a fourth layer", anew([](LooseModel& loose) {
         rename_tensor(loose, "model.layers.2.input_layernorm.weight",
                       "model.layers.3.input_layernorm.weight");
       })},
      {"an unknown tensor", anew([](LooseModel& loose) {
         rename_tensor(loose, kRouter, "model.layers.1.gate.weight");
       })},
      {"a norm is missing", anew([](LooseModel& loose) { loose.erase("model.norm.weight"); })},
      {"no head", anew([](LooseModel& loose) { loose.erase("lm_head.weight"); })},
      {"more chosen than there are",
       anew([](LooseModel& loose) { loose.config["num_experts_per_tok"] = 6; })},
      {"more experts told", anew([](LooseModel& loose) { loose.config["num_local_experts"] = 8; })},
      {"fewer experts told",
       anew([](LooseModel& loose) { loose.config["num_local_experts"] = 3; })},
      {"more layers told", anew([](LooseModel& loose) { loose.config["num_hidden_layers"] = 4; })},
      {"another width told", anew([](LooseModel& loose) { loose.config["hidden_size"] = 32; })},
      {"another vocabulary told", anew([](LooseModel& loose) { loose.config["vocab_size"] = 60; })},
      {"PyTorch's old form",
       [](const fs::path& m) {
         keep_config_alone(m);
         fs::copy_file("tests/golden/pytorch/legacy.pth", m / "pytorch_model.bin");
       }},
      {"a tar file",
       [](const fs::path& m) {
         keep_config_alone(m);
         std::string tar(1024, 'x');
         tar.replace(257, 5, "ustar");
         write_text(m / "pytorch_model.bin", tar);
       }},
      {"a zip file of something else",
       [](const fs::path& m) {
         keep_config_alone(m);
         write_text(m / "pytorch_model.bin", malformed_zips().back().bytes);
       }},
      {"GGUF alone",
       [](const fs::path& m) {
         keep_config_alone(m);
         write_text(m / "model.gguf", "GGUF");
       }},
      {"consolidated weights without params.json",
       [](const fs::path& m) {
         keep_config_alone(m);
         write_text(m / "consolidated.00.pth", "x");
       }},
      {"params.json without weights",
       [](const fs::path& m) {
         keep_config_alone(m);
         fs::rename(m / "config.json", m / "params.json");
       }},
  };
}

std::vector<TextCase> malformed_configs(std::string_view good) {
  std::vector<TextCase> cases = {
      {"empty", ""},
      {"a list", "[]"},
      {"a number", "7"},
      {"cut off", std::string(good.substr(0, good.size() / 2))},
      {"a comma too many", "{\"a\":1,}"},
      {"a key twice", "{\"a\":1,\"a\":1}"},
      {"byte order mark", "\xEF\xBB\xBF{}"},
      {"a NUL", "{\"a\":\0}"s},
      {"no UTF-8", "{\"a\":\"\xC3\x28\"}"},
      {"a lone surrogate", "{\"a\":\"\\udc00\"}"},
      {"65 levels",
       [] {
         std::string text;
         for (int i = 0; i < 65; ++i) text += "{\"a\":";
         return text;
       }()},
      {"NaN", "{\"a\":NaN}"},
      {"a comment", "{} // x"},
      {"a number too large", "{\"a\":1e400}"},
      {"no architecture", "{}"},
      {"an unknown architecture", R"({"architectures":["FooForCausalLM"]})"},
      {"two architectures", R"({"architectures":["MixtralForCausalLM","Qwen3MoeForCausalLM"]})"},
      {"architectures of numbers", R"({"architectures":[1]})"},
      {"an encoder", R"({"architectures":["MixtralModel"]})"},
  };
  const Json whole = Json::parse(good);
  const std::vector<std::pair<const char*, std::vector<Json>>> kChanges = {
      {"hidden_size", {nullptr, 0, -24, 1.5, "24", Json::array(), 1 << 30}},
      {"num_hidden_layers", {nullptr, 0, -1, 3.5, "3", 1 << 30}},
      {"num_local_experts", {nullptr, 0, -5, "5", 1 << 30}},
      {"num_experts_per_tok", {nullptr, 0, 6, -2, "2", Json::object()}},
      {"num_attention_heads", {nullptr, 0, 5, "6"}},
      {"num_key_value_heads", {0, 4, 7, -2, "2"}},
      {"head_dim", {0, 7, -8, "8"}},
      {"intermediate_size", {nullptr, 0, -40, "40"}},
      {"vocab_size", {nullptr, 0, -1, 1.5}},
      {"rms_norm_eps", {0, -1e-5, "small", Json::array()}},
      {"hidden_act", {"gelu", 1, ""}},
      {"rope_parameters",
       {7, Json{{"rope_type", "spiral"}}, Json{{"rope_theta", 0}, {"rope_type", "default"}},
        Json{{"rope_theta", "1e6"}}}},
      {"sliding_window", {-1, "9"}},
      {"tie_word_embeddings", {1, "yes"}},
  };
  for (const auto& [key, values] : kChanges) {
    for (const Json& value : values) {
      Json changed = whole;
      changed[key] = value;
      cases.push_back({fmt::format("{} = {}", key, value.dump()), changed.dump()});
    }
  }
  return cases;
}

std::vector<TextCase> malformed_indices() {
  return {{"empty", ""},
          {"a list", "[]"},
          {"null", "null"},
          {"no weight_map", "{}"},
          {"weight_map a list", R"({"weight_map":[]})"},
          {"weight_map null", R"({"weight_map":null})"},
          {"weight_map empty", R"({"weight_map":{}})"},
          {"cut off", R"({"weight_map":{"a":)"},
          {"a tensor twice", R"({"weight_map":{"a":"x","a":"x"}})"},
          {"weight_map twice", R"({"weight_map":{"a":"x"},"weight_map":{}})"},
          {"a file is a number", R"({"weight_map":{"a":1}})"},
          {"a file is null", R"({"weight_map":{"a":null}})"},
          {"a file is a list", R"({"weight_map":{"a":["x"]}})"},
          {"an empty file name", R"({"weight_map":{"a":""}})"},
          {"a file name with a slash", R"({"weight_map":{"a":"b/c"}})"},
          {"a file name with ..", R"({"weight_map":{"a":".."}})"},
          {"a file name with a NUL", R"({"weight_map":{"a":"x\u0000y"}})"},
          {"a URL", R"({"weight_map":{"a":"https://example.org/x"}})"},
          {"deep", "{\"weight_map\":" + std::string(70, '[')},
          {"no UTF-8", "{\"weight_map\":{\"\xFF\":\"x\"}}"}};
}

std::vector<TextCase> malformed_recipes() {
  return {{"a line without a value", "source"},
          {"an unclosed text", "source = \"x"},
          {"an unclosed list", "[train]\nbetas = [0.9, 0.95"},
          {"a key twice", "source = \"a\"\nsource = \"b\""},
          {"a table twice", "[plan]\ngroup = 2\n[plan]\nshift = 1"},
          {"no UTF-8", "source = \"\xC3\x28\""},
          {"a NUL", "source = \"a\0b\""s},
          {"deep lists", "x = " + std::string(2000, '[')},
          {"deep tables", "x = " + std::string(500, '{')},
          {"an unknown key", "sauce = \"x\""},
          {"an unknown table", "[trian]\nsteps = 1"},
          {"a key of another table", "topology = \"ring_stride\""},
          {"a mistyped key", "[train]\nstpes = 100"},
          {"two mistyped keys", "[train]\nstpes = 100\nleangth = 7"},
          {"a table as a key", "plan = 3"},
          {"a key as a table", "[train.steps]\nx = 1"},
          {"an array of tables", "[[plan]]\ngroup = 2"},
          {"steps a text", "[train]\nsteps = \"many\""},
          {"steps a float", "[train]\nsteps = 1.5"},
          {"steps negative", "[train]\nsteps = -1"},
          {"steps too large", "[train]\nsteps = 9223372036854775808"},
          {"lr a text", "[train]\nlr = \"fast\""},
          {"lr not a number", "[train]\nlr = nan"},
          {"lr infinite", "[train]\nlr = inf"},
          {"lr negative", "[train]\nlr = -1.0"},
          {"betas of three", "[train]\nbetas = [0.9, 0.95, 0.99]"},
          {"betas of texts", "[train]\nbetas = [\"a\", \"b\"]"},
          {"betas beyond one", "[train]\nbetas = [0.9, 1.5]"},
          {"a topology nobody knows", "[plan]\ntopology = \"spiral\""},
          {"a topology that is a number", "[plan]\ntopology = 3"},
          {"group zero", "[plan]\ngroup = 0"},
          {"state_dim too large", "[plan]\nstate_dim = 1000"},
          {"a layout nobody knows", "[convert]\nlayout = \"zip\""},
          {"a shard size without a number", "[convert]\nshard_size = \"GB\""},
          {"a shard size of zero", "[convert]\nshard_size = \"0\""},
          {"a memory that is negative", "[convert]\nmemory = \"-1GiB\""},
          {"a memory beyond 2^64", "[convert]\nmemory = \"99999999999GiB\""},
          {"a date", "source = 2026-01-01"},
          {"a boolean as a path", "source = true"},
          {"open.until beyond one", "[train.open]\nuntil = 1.5"}};
}

}  // namespace moue::test
