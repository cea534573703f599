// Checkpoint: model directories that open, and every way in which one does not.
#include "moue/checkpoint.h"

#include "checkpoint/index.h"
#include "moue/error.h"
#include "support/files.h"
#include "support/malformed.h"
#include "support/scratch.h"

#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

namespace moue {
namespace {

namespace fs = std::filesystem;
using test::ScratchDir;

// A file of one-byte tensors.
std::string shard(const std::vector<std::string>& names) {
  std::string header = "{";
  for (size_t i = 0; i < names.size(); ++i) {
    header += fmt::format("{}{}", i == 0 ? "" : ",",
                          test::raw_entry(names[i], "U8", "[1]", fmt::format("[{},{}]", i, i + 1)));
  }
  return test::raw_file(header + "}", std::string(names.size(), 'x'));
}

using Map = std::vector<std::pair<std::string, std::string>>;

std::string index_of(const Map& map) {
  std::string text = "{\"metadata\":{\"total_size\":0},\"weight_map\":{";
  for (size_t i = 0; i < map.size(); ++i) {
    text += fmt::format("{}\"{}\":\"{}\"", i == 0 ? "" : ",", map[i].first, map[i].second);
  }
  return text + "}}";
}

// Two shards of two tensors, as they should be; each test then breaks something.
void write_model(const ScratchDir& scratch) {
  scratch.write("config.json", "{}");
  scratch.write("a.safetensors", shard({"a1", "a2"}));
  scratch.write("b.safetensors", shard({"b1", "b2"}));
  scratch.write(kIndexFile, index_of({{"a1", "a.safetensors"},
                                      {"a2", "a.safetensors"},
                                      {"b1", "b.safetensors"},
                                      {"b2", "b.safetensors"}}));
}

// The message without its opening, or "" where the directory opens.
std::string refusal(const fs::path& directory) {
  try {
    open_checkpoint(directory);
  } catch (const Error& error) {
    std::string message = error.what();
    const size_t at = message.find(directory.native());
    return at == message.npos ? message : message.erase(at, directory.native().size());
  }
  return "";
}

std::string refusal(const ScratchDir& scratch) { return refusal(scratch.path()); }

std::string refusal_of_index(std::string_view text) {
  const ScratchDir scratch;
  write_model(scratch);
  scratch.write(kIndexFile, text);
  return refusal(scratch);
}

std::string refusal_of_config(std::string_view text) {
  const ScratchDir scratch;
  write_model(scratch);
  scratch.write("config.json", text);
  return refusal(scratch);
}

}  // namespace

TEST_CASE("a sharded model opens", "[checkpoint]") {
  const Checkpoint model = open_checkpoint("tests/golden/families/mixtral");
  CHECK(model.files().size() == 5);
  CHECK(model.file_names()[1] == "model-00002-of-00005.safetensors");
  CHECK(model.data_bytes() == 223488);
  CHECK(model.config().string("model_type") == "mixtral");
  CHECK(model.other_files() == std::vector<std::string>{"generation_config.json"});
  CHECK(model.at("lm_head.weight").shape == std::vector<int64_t>{61, 24});
  CHECK(model.read(model.at("lm_head.weight")).size() == 61 * 24 * 4);
  CHECK(model.find("lm_head.weigh") == nullptr);
  CHECK_THROWS_WITH(
      model.at("lm_head.weigh"),
      "[checkpoint] tests/golden/families/mixtral has no tensor 'lm_head.weigh' among its " +
          std::to_string(model.tensors().size()));
  for (const TensorInfo& tensor : model.tensors()) {
    CHECK(model.files()[tensor.file].at(tensor.name).offset == tensor.offset);
  }
}

TEST_CASE("one file opens, with an index that agrees too", "[checkpoint]") {
  const ScratchDir scratch;
  scratch.write("config.json", "{}");
  scratch.write("model.safetensors", shard({"a", "b"}));
  CHECK(open_checkpoint(scratch.path()).tensors().size() == 2);
  scratch.write(kIndexFile, index_of({{"a", "model.safetensors"}, {"b", "model.safetensors"}}));
  CHECK(refusal(scratch) == "");
  scratch.write("new.safetensors", shard({"c"}));
  scratch.write(
      kIndexFile,
      index_of({{"c", "new.safetensors"}, {"a", "model.safetensors"}, {"b", "model.safetensors"}}));
  const Checkpoint both = open_checkpoint(scratch.path());
  CHECK(both.file_names() == std::vector<std::string>{"model.safetensors", "new.safetensors"});
  CHECK(both.at("c").file == 1);
}

TEST_CASE("a single file and an index that disagree are refused", "[checkpoint]") {
  const ScratchDir scratch;
  write_model(scratch);
  scratch.write("model.safetensors", shard({"a1"}));
  CHECK(refusal(scratch) ==
        "[checkpoint]  has both model.safetensors and model.safetensors.index.json, which names 2 "
        "other "
        "files but not that one; remove the stale one");
  scratch.write(kIndexFile, index_of({{"a2", "model.safetensors"}}));
  CHECK(refusal(scratch) ==
        "[checkpoint] : 1 tensor named by the index but not in the shard: 'a2' in "
        "'model.safetensors'; "
        "1 tensor in a shard but not named there by the index: 'a1' in 'model.safetensors'");
}

TEST_CASE("what is no model directory says why", "[checkpoint]") {
  const ScratchDir scratch;
  CHECK(refusal(scratch / "none") == "[checkpoint]  is not there, wanted a model directory");
  CHECK(refusal(scratch.write("file", "")) ==
        "[checkpoint]  is not a directory, wanted the one that holds config.json");
  CHECK(refusal(scratch) == "[checkpoint]  has no config.json, wanted a model directory");
  scratch.write("config.json", "{}");
  const std::string neither =
      "[checkpoint]  has neither model.safetensors nor model.safetensors.index.json";
  CHECK(refusal(scratch) == neither);
  scratch.write("x.gguf", "x");
  CHECK(refusal(scratch) == neither + "; it holds 'x.gguf', which is not a model that can be read");
}

TEST_CASE("a malformed config.json stops the opening", "[checkpoint]") {
  CHECK(refusal_of_config("{}") == "");
  CHECK(refusal_of_config("[1]") == "[config] /config.json is [1], wanted an object");
  CHECK_THAT(refusal_of_config(""), Catch::StartsWith("[config] /config.json: line 1, column 0: "));
  CHECK_THAT(refusal_of_config("{\"a\": }"),
             Catch::StartsWith("[config] /config.json: line 1, column 7: "));
  CHECK_THAT(refusal_of_config("{\"a\":1,\"a\":1}"),
             Catch::EndsWith("key 'a' stands twice in one object"));
  CHECK_THAT(refusal_of_config("{\"a\":\"\xFF\"}"), Catch::Contains("ill-formed UTF-8"));
  CHECK_THAT(refusal_of_config(std::string(100, '[')), Catch::EndsWith("more than 64 levels deep"));
}

TEST_CASE("a malformed index stops the opening", "[checkpoint]") {
  const std::string start = "[checkpoint] /model.safetensors.index.json";
  CHECK(refusal_of_index("7") == start + " is 7, wanted an object");
  CHECK(refusal_of_index("{}") == start + " has no weight_map");
  CHECK(refusal_of_index("{\"weight_map\":[]}") ==
        start + ": weight_map is [], wanted an object of tensor and file");
  CHECK(refusal_of_index("{\"weight_map\":{}}") ==
        start + ": weight_map is empty, wanted at least one tensor");
  CHECK_THAT(refusal_of_index("{\"weight_map\":{"), Catch::StartsWith(start + ": line 1, column "));
  CHECK_THAT(refusal_of_index(index_of({{"a1", "a.safetensors"}, {"a1", "a.safetensors"}})),
             Catch::EndsWith("key 'a1' stands twice in one object"));
}

TEST_CASE("names in the index stay inside the directory", "[checkpoint]") {
  CHECK(
      refusal_of_index(
          R"({"weight_map":{"a1":"../a.safetensors","a2":"/etc/passwd","b1":"b.safetensors",
      "b2":"..","c":".","d":"","e":"sub/x","f":"a\u0000b","g":3,"h":["x"],"i":null}})") ==
      "[checkpoint] /model.safetensors.index.json: 10 values of weight_map name no file inside the "
      "directory: 'a1' is in '../a.safetensors', 'a2' is in '/etc/passwd', 'b2' is in '..', 'c' is "
      "in "
      "'.', 'd' is in '', 'e' is in 'sub/x', 'f' is in 'a\\x00b', 'g' is in 3, 'h' is in [\"x\"], "
      "'i' is in null");
  CHECK(is_plain_name("model-00001-of-00002.safetensors"));
  CHECK(is_plain_name("..a"));
}

TEST_CASE("missing shards are all named", "[checkpoint]") {
  const ScratchDir scratch;
  write_model(scratch);
  fs::remove(scratch / "b.safetensors");
  CHECK(refusal(scratch) ==
        "[checkpoint] : 1 of 2 shards is missing: 'b.safetensors'; download again or restore");
  fs::remove(scratch / "a.safetensors");
  fs::create_symlink("blobs/77", scratch / "a.safetensors");
  CHECK(refusal(scratch) ==
        "[checkpoint] : 2 of 2 shards are missing: 'a.safetensors' (a link to blobs/77), "
        "'b.safetensors'; "
        "download again or restore");
  Map map;
  for (int i = 10; i < 35; ++i) map.emplace_back(fmt::format("t{}", i), fmt::format("s{}", i));
  scratch.write(kIndexFile, index_of(map));
  CHECK_THAT(refusal(scratch), Catch::Contains("25 of 25 shards are missing: 's10', 's11'") &&
                                   Catch::Contains("'s29' and 5 more; download"));
}

TEST_CASE("shards may be links to regular files", "[checkpoint]") {
  const ScratchDir scratch;
  write_model(scratch);
  fs::create_directory(scratch / "blobs");
  fs::rename(scratch / "a.safetensors", scratch / "blobs/77");
  fs::create_symlink("blobs/77", scratch / "a.safetensors");
  CHECK(open_checkpoint(scratch.path()).read(open_checkpoint(scratch.path()).at("a1")).size() == 1);
  fs::remove(scratch / "a.safetensors");
  fs::create_symlink("blobs", scratch / "a.safetensors");
  CHECK(refusal(scratch) == "[checkpoint] /a.safetensors is a directory, wanted a regular file");
  fs::remove(scratch / "a.safetensors");
  REQUIRE(::mkfifo((scratch / "a.safetensors").c_str(), 0600) == 0);
  CHECK(refusal(scratch) == "[checkpoint] /a.safetensors is a FIFO, wanted a regular file");
}

TEST_CASE("broken shards are named together", "[checkpoint]") {
  const ScratchDir scratch;
  write_model(scratch);
  fs::resize_file(scratch / "a.safetensors", 5);
  CHECK_THAT(refusal(scratch),
             Catch::StartsWith("[safetensors] /a.safetensors: the file has 5 bytes"));
  scratch.write("b.safetensors", test::raw_file("[]"));
  CHECK_THAT(refusal(scratch), Catch::Contains("2 of 2 shards cannot be read: ") &&
                                   Catch::Contains("a.safetensors: the file has 5 bytes") &&
                                   Catch::Contains("b.safetensors: the header starts with '[]'"));
}

TEST_CASE("index and shards are held against each other", "[checkpoint]") {
  const ScratchDir scratch;
  write_model(scratch);
  CHECK(refusal(scratch) == "");
  scratch.write("b.safetensors", shard({"b1", "a1", "extra"}));
  CHECK(refusal(scratch) ==
        "[checkpoint] : 1 tensor named by the index but not in the shard: 'b2' in 'b.safetensors'; "
        "1 tensor in a shard but not named there by the index: 'extra' in 'b.safetensors'; "
        "1 tensor in two shards: 'a1' in a.safetensors and b.safetensors");
  scratch.write("b.safetensors", shard({"b1", "b2"}));
  scratch.write(kIndexFile, index_of({{"a1", "a.safetensors"},
                                      {"a2", "b.safetensors"},
                                      {"b1", "b.safetensors"},
                                      {"b2", "b.safetensors"}}));
  CHECK(refusal(scratch) ==
        "[checkpoint] : 1 tensor named by the index but not in the shard: 'a2' in 'b.safetensors'; "
        "1 tensor in a shard but not named there by the index: 'a2' in 'a.safetensors'");
  scratch.write("a.safetensors", shard({"a1", "a2"}));
  scratch.write("b.safetensors", shard({"b1", "b2", "a2"}));
  CHECK(refusal(scratch) ==
        "[checkpoint] : 1 tensor in two shards: 'a2' in a.safetensors and b.safetensors");
}

TEST_CASE("two names of one file are two shards", "[checkpoint]") {
  const ScratchDir scratch;
  write_model(scratch);
  fs::remove(scratch / "b.safetensors");
  fs::create_hard_link(scratch / "a.safetensors", scratch / "b.safetensors");
  CHECK_THAT(refusal(scratch),
             Catch::Contains("2 tensors in two shards: 'a1' in a.safetensors and "
                             "b.safetensors, 'a2' in a.safetensors and b.safetensors"));
}

TEST_CASE("a model without tensors is refused", "[checkpoint]") {
  const ScratchDir scratch;
  scratch.write("config.json", "{}");
  scratch.write("model.safetensors", test::raw_file("{}"));
  CHECK(refusal(scratch) == "[checkpoint] : its weight files hold no tensor");
}

TEST_CASE("other files are those that go along with a model", "[checkpoint]") {
  const ScratchDir scratch;
  write_model(scratch);
  for (const char* name : {"tokenizer.json", "LICENSE", ".gitattributes", "pytorch_model.bin",
                           "x.gguf", "consolidated.safetensors", "pytorch_model.bin.index.json",
                           "moue-manifest.json", "sub/inside"}) {
    scratch.write(name, "x");
  }
  fs::create_symlink("LICENSE", scratch / "COPYING");
  fs::create_symlink("nowhere", scratch / "dangling");
  CHECK(open_checkpoint(scratch.path()).other_files() ==
        std::vector<std::string>{".gitattributes", "COPYING", "LICENSE", "tokenizer.json"});
}

TEST_CASE("opening writes nothing", "[checkpoint]") {
  const ScratchDir scratch;
  test::copy_tree("tests/golden/families/qwen3_moe", scratch / "model");
  const auto before = test::snapshot(scratch / "model");
  const Checkpoint model = open_checkpoint(scratch / "model");
  for (const TensorInfo& tensor : model.tensors()) model.read(tensor);
  CHECK(test::snapshot(scratch / "model") == before);
  test::write_text(scratch / "model/config.json", "{}");
  CHECK(test::snapshot(scratch / "model") != before);
}

TEST_CASE("an index is written as it is read", "[checkpoint]") {
  const ScratchDir scratch;
  const Index index{{"a.safetensors", "b.safetensors"}, {{"z", 1}, {"a", 0}}};
  const std::string text = index_text(index, 3, 12);
  CHECK(
      nlohmann::ordered_json::parse(text).dump() ==
      R"({"metadata":{"total_parameters":3,"total_size":12},"weight_map":{"z":"b.safetensors","a":"a.safetensors"}})");
  const Index again = read_index(scratch.write("index.json", text));
  CHECK(again.files == index.files);
  CHECK(again.weight_map == index.weight_map);
}

}  // namespace moue
