// validate --manifest: a written directory by its own manifest; every damage to it is found.
#include <catch2/catch.hpp>

#include <fstream>

#include "checkpoint/manifest.h"
#include "core/sha256.h"
#include "moue/convert.h"
#include "moue/validate.h"
#include "support/files.h"
#include "support/loose_model.h"
#include "support/messages.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

const char* const kSource = "tests/golden/families/qwen3_moe";

struct Converted {
  ScratchDir scratch;
  fs::path directory = scratch / "model";
  Converted() {
    const Checkpoint source = open_checkpoint(kSource);
    const Plan plan =
        make_plan(source, family_of(source.config()), nullptr, {.topology = "half_staggered"});
    convert(source, plan, nullptr, directory, {});
  }
  // "files: 'note.txt' is not listed; ", ... of the checks that fail.
  std::string faults() const {
    std::string text;
    for (const Check& check : validate_directory(directory).checks) {
      if (check.outcome == Outcome::Fail) text += check.name + ": " + check.note + "; ";
    }
    return text;
  }
  void change(void (*edit)(Manifest&)) const {
    Manifest manifest = read_manifest(directory);
    edit(manifest);
    write_manifest(directory, manifest);
  }
};

}  // namespace

TEST_CASE("what was converted passes by its manifest, and linked files are said to be unhashed",
          "[validate]") {
  const Converted converted;
  const Report report = validate_directory(converted.directory);
  CHECK(report.passed());
  REQUIRE(report.checks.size() == 4);
  CHECK(report.checks[1].note == "10 files, 6 of them by SHA-256, 4 by size");
  CHECK(contains(report.checks[2].note, "qwen3_moe, "));
  REQUIRE(report.warnings.size() == 1);
  CHECK(contains(report.warnings[0], "4 linked files have no SHA-256"));
}

TEST_CASE("files that are not as listed are found", "[validate]") {
  const Converted converted;
  const fs::path added = converted.directory / "model-moue.safetensors";
  const std::string good = file_text(added);
  std::string bad = good;
  bad.back() ^= 1;
  write_text(added, bad);
  CHECK(contains(converted.faults(), "files: 'model-moue.safetensors' has sha256 "));
  write_text(added, good.substr(0, good.size() - 4));
  CHECK(contains(converted.faults(), "files: 'model-moue.safetensors' has "));
  write_text(added, good);
  CHECK(converted.faults().empty());
  write_text(converted.directory / "note.txt", "x");
  CHECK(contains(converted.faults(), "files: 'note.txt' is not listed"));
  fs::remove(converted.directory / "note.txt");
  fs::remove(converted.directory / "config.json");
  CHECK(contains(converted.faults(), "files: 'config.json' is missing"));
  CHECK(contains(converted.faults(), "model: [checkpoint] "));
}

TEST_CASE("a ledger that is not so is found", "[validate]") {
  const Converted converted;
  converted.change([](Manifest& m) { m.tensors.erase("model.norm.weight"); });
  CHECK(contains(converted.faults(), "ledger: the manifest does not know model.norm.weight"));
  converted.change([](Manifest& m) { m.tensors["model.norm.weight"] = "linked config.json"; });
  CHECK(contains(converted.faults(), "ledger: model.norm.weight is in model-0000"));
  converted.change([](Manifest& m) {
    m.tensors["model.norm.weight"] = "linked model-00004-of-00004.safetensors";
    m.tensors["model.norm.bias"] = "linked model-00004-of-00004.safetensors";
  });
  CHECK(contains(converted.faults(), "model.norm.bias is missing, the manifest says 'linked "));
  converted.change([](Manifest& m) { m.tensors["model.norm.bias"] = "dropped: not used"; });
  CHECK(converted.faults().empty());
}

TEST_CASE("a directory without a manifest, or none at all", "[validate]") {
  CHECK(contains(message_of([] { validate_directory("tests/golden/none"); }),
                 "[validate] tests/golden/none is no directory; name one that moue convert"));
  const Report report = validate_directory(kSource);
  CHECK_FALSE(report.passed());
  CHECK(contains(report.checks[0].note, "moue-manifest.json is not there"));
}

TEST_CASE("linked files hashed on request are compared by their bytes", "[validate]") {
  const ScratchDir scratch;
  copy_tree(kSource, scratch / "source");
  const Checkpoint source = open_checkpoint(scratch / "source");
  const Plan plan =
      make_plan(source, family_of(source.config()), nullptr, {.topology = "half_staggered"});
  const auto made = [&](const char* name, bool hash, const char* layout) {
    ConvertOptions options;
    options.hash = hash;
    options.layout = layout;
    convert(source, plan, nullptr, scratch / name, options);
    return scratch / name;
  };
  const fs::path hashed = made("hashed", true, "linked"), plain = made("plain", false, "linked");
  CHECK(validate_directory(hashed).warnings.empty());
  CHECK(validate_directory(hashed).checks[1].note == "10 files, 10 of them by SHA-256, 0 by size");
  // The source's shards are the same files: a flipped bit there is one here.
  const fs::path shard = hashed / source.file_names()[0];
  std::fstream file(shard, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-1, std::ios::end);
  const char last = static_cast<char>(file.get() ^ 1);
  file.seekp(-1, std::ios::end);
  file.put(last);
  file.close();
  CHECK_FALSE(validate_directory(hashed).passed());
  CHECK(validate_directory(plain).passed());  // by size alone

  for (const bool hash : {false, true}) {
    const Manifest manifest = read_manifest(made(hash ? "a" : "b", hash, "packed"));
    for (const ManifestFile& listed : manifest.source_files) {
      const bool is_weights = listed.name.ends_with(".safetensors");
      CHECK(listed.sha256.has_value() == (hash || !is_weights));
      if (listed.sha256) CHECK(*listed.sha256 == sha256_of_file(source.directory() / listed.name));
    }
  }
}
