// Layouts: every family there and back with every tensor's digest; the order of a packed model;
// equal bytes whatever the threads and memory.
#include <catch2/catch.hpp>

#include <sys/stat.h>

#include <algorithm>

#include "checkpoint/manifest.h"
#include "moue/error.h"
#include "moue/validate.h"
#include "support/files.h"
#include "support/layouts.h"
#include "support/loose_model.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

const fs::path kTiny = "examples/tiny-mixtral";

std::string failures(const fs::path& original, const fs::path& result) {
  ValidateOptions options;
  options.only_bytes = true;
  std::string text;
  for (const Check& check : validate(open_checkpoint(original), result, options).checks) {
    if (check.outcome == Outcome::Fail) text += check.name + ": " + check.note + "\n";
  }
  return text;
}

std::string config_text(const fs::path& directory) {
  return Config::read(directory / "config.json").text();
}

// SHA-256 of every file by its name, the ledger aside: it names the files a model was made of.
std::map<std::string, std::string> contents(const fs::path& directory) {
  std::map<std::string, std::string> result;
  for (const auto& [name, state] : snapshot(directory)) result[name] = state.content;
  result.erase(std::string(kManifestFile));
  return result;
}

ino_t inode(const fs::path& file) {
  struct stat status {};
  REQUIRE(::stat(file.c_str(), &status) == 0);
  return status.st_ino;
}

std::vector<std::string> order_of(const fs::path& directory) {
  const Checkpoint checkpoint = open_checkpoint(directory);
  std::vector<std::string> names;
  for (const TensorInfo& tensor : checkpoint.tensors()) names.push_back(tensor.name);
  return names;
}

void check_round_trip(const fs::path& source, int64_t new_experts) {
  INFO(source.string() << ", new experts " << new_experts);
  const Scratch scratch;
  const auto before = snapshot(source);
  to_moue(source, scratch / "linked", {}, new_experts);
  relayout(scratch / "linked", scratch / "packed", layout("packed"));
  relayout(scratch / "packed", scratch / "export", layout("export"));
  const TensorDigests wanted = digests_of(source);
  CHECK(base_digests_of(scratch / "linked") == wanted);
  CHECK(digests_of(scratch / "packed") == digests_of(scratch / "linked"));
  CHECK(digests_of(scratch / "export") == wanted);
  CHECK(config_text(scratch / "packed") == config_text(scratch / "linked"));
  CHECK(config_text(scratch / "export") == config_text(source));
  CHECK(failures(source, scratch / "packed") == "");
  // The other ways round: straight to packed, back to linked, and the whole way once more.
  to_moue(source, scratch / "direct", layout("packed"), new_experts);
  CHECK(contents(scratch / "direct") == contents(scratch / "packed"));
  relayout(scratch / "packed", scratch / "relinked", layout("linked"));
  CHECK(digests_of(scratch / "relinked") == digests_of(scratch / "linked"));
  CHECK(failures(source, scratch / "relinked") == "");
  to_moue(scratch / "export", scratch / "again", layout("packed"), new_experts);
  CHECK(contents(scratch / "again") == contents(scratch / "packed"));
  CHECK(snapshot(source) == before);
}

void flip_last_byte(const fs::path& file) {
  std::string bytes = file_text(file);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_text(file, bytes);
}

}  // namespace

TEST_CASE("every family: linked, packed, export and back, each tensor's digest equal") {
  const std::vector<std::string> folders = family_folders();
  REQUIRE(folders.size() == 16);
  for (const std::string& folder : folders) check_round_trip(folder, 0);
}

TEST_CASE("every family expanded: new experts move along and are left out of an export") {
  for (const std::string& folder : family_folders()) check_round_trip(folder, 3);
}

TEST_CASE("quantised models move as they are") {
  check_round_trip("tests/golden/packed/fp8", 0);
  check_round_trip("tests/golden/packed/mxfp4", 2);
}

TEST_CASE("a changed byte shows in digests and in G0") {
  const Scratch scratch;
  to_moue(kTiny, scratch / "packed", layout("packed"));
  const fs::path file = scratch / "packed/model-00001-of-00001.safetensors";
  const TensorDigests before = digests_of(scratch / "packed");
  flip_last_byte(file);
  CHECK(digests_of(scratch / "packed") != before);
  CHECK_THAT(failures(kTiny, scratch / "packed"), Contains("listed with"));
}

TEST_CASE("a packed model lies in reading order, page-aligned, in shards of the size asked for") {
  const Scratch scratch;
  ConvertOptions options = layout("packed");
  options.shard_size = 1'000'000;
  to_moue(kTiny, scratch / "packed", options, 4);
  const Checkpoint packed = open_checkpoint(scratch / "packed");
  REQUIRE(packed.files().size() > 5);
  for (const WeightFile& each : packed.files()) {
    const SafetensorsFile file(each.path());
    CHECK(file.data_offset() % 4096 == 0);
    CHECK(file.size() <= options.shard_size);
    CHECK(file.metadata().at("format") == "pt");
  }
  const std::vector<std::string> names = order_of(scratch / "packed");
  CHECK(names.front() == "model.embed_tokens.weight");
  const auto at = [&](const std::string& name) { return std::ranges::find(names, name); };
  const std::string block = "model.layers.3.block_sparse_moe.";
  const auto gate = at(block + "experts.5.w1.weight");
  REQUIRE(gate < names.end() - 2);
  CHECK(gate[-1] == block + "experts.4.w2.weight");
  CHECK(gate[1] == block + "experts.5.w3.weight");
  CHECK(gate[2] == block + "experts.5.w2.weight");
  CHECK(at("model.layers.3.self_attn.q_proj.weight") < at(block + "gate.weight"));
  CHECK(at(block + "gate.weight")[1] == block + "experts.0.w1.weight");
  CHECK(at("model.layers.7.block_sparse_moe.experts.7.w2.weight") < at("model.norm.weight"));
  CHECK(at("model.norm.weight") < at("moue.experts.0.gate.weight"));
  CHECK(at("moue.experts.3.down.weight") < at("moue.layers.0.router.weight"));
  CHECK(names.back() == "moue.pool_bias");
  CHECK(order_of(kTiny) != names);

  options.shard_size = 4096;  // less than a tensor: one for each
  relayout(scratch / "packed", scratch / "export", [&] {
    ConvertOptions exported = options;
    exported.layout = "export";
    return exported;
  }());
  CHECK(open_checkpoint(scratch / "export").files().size() > 200);
  CHECK(digests_of(scratch / "export") == digests_of(kTiny));
}

TEST_CASE("the same bytes whatever the threads and the memory, and in a second run") {
  const Scratch scratch;
  ConvertOptions options = layout("packed");
  options.shard_size = 3'000'000;
  const auto run = [&](const std::string& name, int64_t threads, uint64_t memory) {
    options.threads = threads;
    options.memory = memory;
    to_moue(kTiny, scratch / name, options, 8);
    return snapshot(scratch / name);
  };
  const auto seen = [](const std::map<std::string, FileState>& files) {
    std::map<std::string, std::string> result;
    for (const auto& [name, file] : files) result[name] = file.content;
    return result;
  };
  const auto one = seen(run("one", 1, 1 << 20));
  REQUIRE(one.size() > 6);
  CHECK(seen(run("two", 2, 1 << 20)) == one);
  CHECK(seen(run("many", 7, uint64_t{1} << 30)) == one);
  CHECK(seen(run("again", 2, 1 << 20)) == one);
  options.seed = 1;
  CHECK(seen(run("other", 2, 1 << 20)) != one);
  CHECK(manifest_faults(read_manifest(scratch / "two"), scratch / "two", true).empty());
}

TEST_CASE("linking a packed model links its shards") {
  const Scratch scratch;
  to_moue(kTiny, scratch / "packed", layout("packed"));
  relayout(scratch / "packed", scratch / "linked", layout("linked"));
  const std::string shard = "model-00001-of-00001.safetensors";
  const bool same = inode(scratch / "linked" / shard) == inode(scratch / "packed" / shard);
  const bool reflinks = !same && contents(scratch / "linked") == contents(scratch / "packed");
  CHECK((same || reflinks));
  CHECK(inode(scratch / "linked/tokenizer.json") != inode(scratch / "packed/tokenizer.json"));
  const Manifest ledger = read_manifest(scratch / "linked");
  CHECK(ledger.tensors.at("lm_head.weight") == "linked " + shard);
  CHECK(ledger.tensors.at("moue.pool_bias") == "linked " + shard);
  CHECK(read_manifest(scratch / "packed").tensors.at("lm_head.weight") == "copied " + shard);
}

TEST_CASE("a tied head is written once, unless it is another") {
  const fs::path tied = "tests/golden/families/mixtral_sliding_tied";
  const Scratch scratch;
  LooseModel model(tied);
  LooseTensor head = model.at("model.embed_tokens.weight");
  head.name = "lm_head.weight";
  model.add(head);
  model.write(scratch / "twice");
  REQUIRE(digests_of(scratch / "twice").contains("lm_head.weight"));
  to_moue(scratch / "twice", scratch / "packed", layout("packed"));
  CHECK(base_digests_of(scratch / "packed") == digests_of(tied));
  CHECK(failures(scratch / "twice", scratch / "packed") == "");
  CHECK(read_manifest(scratch / "packed").tensors.at("lm_head.weight") ==
        "dropped: tied, the same as model.embed_tokens.weight");

  model.at("lm_head.weight").bytes[7] ^= std::byte{1};
  model.write(scratch / "differs");
  to_moue(scratch / "differs", scratch / "kept", layout("packed"));
  CHECK(base_digests_of(scratch / "kept") == digests_of(scratch / "differs"));
  CHECK_THAT(failures(scratch / "differs", scratch / "packed"),
             Contains("lm_head.weight is missing"));
}

TEST_CASE("a dry run says what every layout takes and writes nothing") {
  const Scratch scratch;
  ConvertOptions options = layout("packed");
  options.dry_run = true;
  const Report report = to_moue(kTiny, scratch / "out", options);
  CHECK(fs::is_empty(scratch.path()));
  const auto fact = [&](const std::string& key) {
    return std::ranges::find(report.facts, key, &Fact::key)->value;
  };
  options.dry_run = false;
  to_moue(kTiny, scratch / "out", options);
  uint64_t written = 0;
  for (const auto& [name, file] : snapshot(scratch / "out")) written += file.size;
  const auto said = static_cast<double>(std::get<int64_t>(fact("bytes_to_write")));
  CHECK(said == Approx(static_cast<double>(written)).epsilon(0.02));
  CHECK(std::get<int64_t>(fact("peak_memory")) > int64_t{64} << 20);
  const std::vector<std::vector<Value>>& rows = report.tables.at(0).rows;
  REQUIRE(rows.size() == 3);
  CHECK(std::get<int64_t>(rows[0][2]) < std::get<int64_t>(rows[1][2]) / 10);
  CHECK_THAT(std::get<std::string>(rows[2].back()), Contains("leave the plan out"));
}
