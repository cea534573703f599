// Manifests: read as written, malformed ones refused, every change of a directory found.
#include "checkpoint/manifest.h"
#include "core/sha256.h"
#include "support/files.h"
#include "support/messages.h"
#include "support/scratch.h"

#include <catch2/catch.hpp>

namespace moue {
namespace {

namespace fs = std::filesystem;
using test::message_of;
using test::ScratchDir;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

}  // namespace

TEST_CASE("a manifest is read as it was written", "[writing]") {
  const ScratchDir scratch;
  const std::string digest(64, 'a');
  const Manifest manifest{"moue 0.1.0",
                          "source = \"x\"\n",
                          {{"b", 2, std::nullopt}, {"a", 1, digest}, {"training/s", 0, digest}},
                          {{"model.safetensors", 9, std::nullopt}},
                          {{"w", "linked a"}, {"v", "ignored: rotary buffer"}}};
  write_manifest(scratch.path(), manifest);
  const Manifest again = read_manifest(scratch.path());
  CHECK(again.tool == manifest.tool);
  CHECK(again.recipe == manifest.recipe);
  CHECK(again.tensors == manifest.tensors);
  REQUIRE(again.files.size() == 3);
  CHECK(again.files[0].name == "a");
  CHECK(again.files[0].sha256 == digest);
  CHECK(again.files[1].size == 2);
  CHECK_FALSE(again.files[1].sha256.has_value());
  CHECK(again.source_files[0].name == "model.safetensors");
  Manifest shuffled = manifest;
  std::swap(shuffled.files[0], shuffled.files[2]);
  CHECK(manifest_text(shuffled) == manifest_text(manifest));
  shuffled.files[0].size = 3;
  CHECK(manifest_text(shuffled) != manifest_text(manifest));
}

TEST_CASE("a malformed manifest is refused", "[writing]") {
  const ScratchDir scratch;
  const auto refusal = [&](const std::string& from, const std::string& to) {
    std::string text =
        manifest_text({"t", "r", {{"a", 1, std::string(64, 'a')}}, {}, {{"w", "linked"}}});
    if (!from.empty()) {
      REQUIRE(text.find(from) != text.npos);
      text.replace(text.find(from), from.size(), to);
    }
    scratch.write(kManifestFile, text);
    const std::string message = message_of([&] { read_manifest(scratch.path()); });
    return message.substr(std::min(message.size(), message.find(".json") + 5));
  };
  const std::string wanted = ", wanted a name inside the directory, a size and a sha256 or null";
  CHECK(refusal("", "") == "");
  CHECK(refusal("\"moue_manifest\": 1", "\"moue_manifest\": 2") ==
        ": moue_manifest is 2, this moue reads 1");
  CHECK(refusal("\"tool\"", "\"tol\"") == " has no tool");
  CHECK(refusal("\"r\"", "7") == ": recipe is no string");
  CHECK(refusal("\"source_files\": []", "\"source_files\": {}") == ": source_files is no list");
  CHECK(refusal("\"linked\"", "null") == ": tensors.w is no string");
  CHECK_THAT(refusal("\"a\"", "\"../a\""),
             Catch::StartsWith(": files holds {\"name\":\"../a\"") && Catch::EndsWith(wanted));
  for (const char* bad : {"\"\"", "\"/a\"", "\"a/../b\"", "\"a//b\"", "\"a/\"", "3"}) {
    CHECK_THAT(refusal("\"a\"", bad), Catch::EndsWith(wanted));
  }
  CHECK_THAT(refusal("\"size\": 1", "\"size\": -1"), Catch::EndsWith(wanted));
  CHECK_THAT(refusal("\"aaaa", "\"Aaaa"), Catch::EndsWith(wanted));
  CHECK_THAT(refusal("\"size\"", "\"length\""), Catch::EndsWith(wanted));
  CHECK_THAT(refusal("\"a\"", "\"a\", \"name\": \"b\""),
             Catch::EndsWith("key 'name' stands twice in one object"));
  fs::remove(scratch / kManifestFile);
  CHECK_THAT(message_of([&] { read_manifest(scratch.path()); }),
             Catch::EndsWith(".json is not there"));
}

TEST_CASE("a manifest finds every change", "[writing]") {
  const ScratchDir scratch;
  scratch.write("a", "abc");
  scratch.write("sub/b", "de");
  const Manifest manifest{
      "t", "", {{"a", 3, sha256_of(bytes_of("abc"))}, {"sub/b", 2, std::nullopt}}, {}, {}};
  write_manifest(scratch.path(), manifest);
  const auto faults = [&](bool hash) { return manifest_faults(manifest, scratch.path(), hash); };
  CHECK(faults(true).empty());
  scratch.write("a", "abd");
  CHECK(faults(false).empty());
  REQUIRE(faults(true).size() == 1);
  CHECK_THAT(faults(true)[0],
             Catch::StartsWith("'a' has sha256 a52d159f262b2c6ddb724a61840befc36eb30c88"
                               "877a4030b65cbe86298449c9, listed with ba7816bf"));
  scratch.write("a", "ab");
  scratch.write("sub/c", "");
  fs::remove(scratch / "sub/b");
  CHECK(faults(false) == std::vector<std::string>{"'a' has 2 bytes, listed with 3",
                                                  "'sub/b' is missing", "'sub/c' is not listed"});
}

}  // namespace moue
