// G0 and the closed state: an honest conversion passes, each mutant is found, states decide which
// gates apply.
#include <catch2/catch.hpp>

#include <algorithm>

#include "checkpoint/manifest.h"
#include "moue/convert.h"
#include "moue/error.h"
#include "moue/validate.h"
#include "support/files.h"
#include "support/mutants.h"
#include "support/scratch.h"
#include "validate/bytes.h"

using namespace moue;
using namespace moue::test;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

const std::vector<std::string> kSources = {"tests/golden/families/mixtral",
                                           "tests/golden/families/mixtral_sliding_tied",
                                           "tests/golden/families/qwen3_moe"};
const char* const kTiny = "examples/tiny-mixtral";

void convert_to(const fs::path& from, const fs::path& to,
                const std::string& topology = "half_staggered") {
  const Checkpoint source = open_checkpoint(from);
  PlanOptions options;
  options.topology = topology;
  const Plan plan = make_plan(source, family_of(source.config()), nullptr, options);
  convert(source, plan, nullptr, to, {});
}

Report bytes_of(const fs::path& original, const fs::path& result, const std::string& expect = "") {
  ValidateOptions options;
  options.expect = expect;
  options.only_bytes = true;
  return validate(open_checkpoint(original), result, options);
}

// "G0 tensors: model.norm.weight differs ..." of every check that failed.
std::string failures(const Report& report) {
  std::string text;
  for (const Check& check : report.checks) {
    if (check.outcome == Outcome::Fail) text += check.name + ": " + check.note + "\n";
  }
  return text;
}

Outcome outcome(const Report& report, const std::string& name) {
  const auto check = std::ranges::find(report.checks, name, &Check::name);
  if (check == report.checks.end()) throw std::logic_error("no check " + name);
  return check->outcome;
}

}  // namespace

TEST_CASE("honest conversions pass") {
  const Scratch scratch;
  const std::string source = GENERATE(from_range(kSources));
  for (const char* topology : {"vanilla", "aligned", "sliding", "half_staggered", "one_pool"}) {
    convert_to(source, scratch / topology, topology);
    const Report report = bytes_of(source, scratch / topology);
    INFO(source << " " << topology << "\n" << failures(report));
    CHECK(report.passed());
    CHECK(outcome(report, "G0 tensors") == Outcome::Pass);
    CHECK(outcome(report, "G1 closed") == Outcome::Pass);
  }
}

TEST_CASE("a copy of a conversion passes, its bytes compared instead of its inodes") {
  const Scratch scratch;
  convert_to(kTiny, scratch / "converted");
  write_mutant({"none", "", [](LooseModel&) {}}, scratch / "converted", scratch / "copy");
  const Report report = bytes_of(kTiny, scratch / "copy");
  INFO(failures(report));
  CHECK(report.passed());
}

TEST_CASE("every mutant is found without a forward pass") {
  const Scratch scratch;
  const std::string source = GENERATE(values<std::string>({kSources[0], kSources[2]}));
  convert_to(source, scratch / "converted");
  std::vector<Mutant> list = mutants();
  CHECK(list.size() >= 40);
  for (const Mutant& mutant : list) {
    write_mutant(mutant, scratch / "converted", scratch / "mutant");
    const Report report = bytes_of(source, scratch / "mutant");
    INFO(source << ": " << mutant.name << "\n" << failures(report));
    CHECK_FALSE(report.passed());
    CHECK_THAT(failures(report), Contains(mutant.found_by + ": "));
    fs::remove_all(scratch / "mutant");
  }
}

TEST_CASE("faults are named") {
  const Scratch scratch;
  convert_to(kTiny, scratch / "converted");
  const auto failures_of = [&](const char* name) {
    const std::vector<Mutant> list = mutants();
    const auto mutant = std::ranges::find(list, name, &Mutant::name);
    REQUIRE(mutant != list.end());
    fs::remove_all(scratch / "mutant");
    write_mutant(*mutant, scratch / "converted", scratch / "mutant");
    return failures(bytes_of(kTiny, scratch / "mutant"));
  };
  CHECK_THAT(failures_of("flip the lowest bit of a norm"),
             Contains("model.layers.1.post_attention_layernorm.weight differs from byte 0 of 256"));
  CHECK_THAT(failures_of("delete one expert"),
             Contains("model.layers.1.block_sparse_moe.experts.1.w1.weight"));
  CHECK_THAT(failures_of("leave a foreign slot open"),
             Contains("moue.layers.1.router.visibility holds 1 at index 0, wanted 0 while"));
  CHECK_THAT(failures_of("a foreign row of NaN"),
             Contains("moue.layers.1.router.weight holds nan at index 0, wanted finite numbers"));
  CHECK_THAT(failures_of("add a pool tensor nobody knows"),
             Contains("1 tensor under 'moue.' that the pool does not name"));
  CHECK_THAT(failures_of("no block"),
             Contains("tensors without a row (moue.layers.0.router.weight"));
}

TEST_CASE("the manifest is held against the files") {
  const Scratch scratch;
  convert_to(kSources[0], scratch / "out");
  const auto failing = [&] { return failures(bytes_of(kSources[0], scratch / "out")); };
  REQUIRE(failing().empty());
  write_text(scratch / "out/note.txt", "hello");
  CHECK_THAT(failing(), Contains("G0 manifest: 'note.txt' is not listed"));
  fs::remove(scratch / "out/note.txt");
  const std::string manifest = file_text(scratch / "out" / kManifestFile);

  Manifest changed = read_manifest(scratch / "out");
  changed.files.front().size += 1;
  write_manifest(scratch / "out", changed);
  CHECK_THAT(failing(), Contains("G0 manifest: "));
  changed = read_manifest(scratch / "out");
  changed.files.front().size -= 1;
  changed.tensors.begin()->second = "linked elsewhere.safetensors";
  changed.tensors.erase(std::prev(changed.tensors.end()));
  changed.tensors["stranger"] = "linked x";
  write_manifest(scratch / "out", changed);
  CHECK_THAT(failing(), Contains("the manifest says 'linked elsewhere.safetensors'") &&
                            Contains("does not say what became of") &&
                            Contains("speaks of 'stranger', which the source lacks"));
  fs::remove(scratch / "out" / kManifestFile);
  CHECK_THAT(failing(), Contains("moue-manifest.json is missing; was the conversion completed?"));
  write_text(scratch / "out" / kManifestFile, manifest);
  CHECK(failing().empty());
}

TEST_CASE("a damaged result fails, a path that is no model throws") {
  const Scratch scratch;
  convert_to(kSources[0], scratch / "out");
  fs::remove(scratch / "out/model-00002-of-00005.safetensors");
  const Report report = bytes_of(kSources[0], scratch / "out");
  CHECK(outcome(report, "G0 structure") == Outcome::Fail);
  CHECK_THAT(failures(report), Contains("model-00002-of-00005.safetensors"));
  CHECK_THROWS_WITH(bytes_of(kSources[0], scratch / "absent"), Contains("absent"));
  fs::create_directory(scratch / "empty");
  CHECK_THROWS_WITH(bytes_of(kSources[0], scratch / "empty"), Contains("config.json"));
}

TEST_CASE("the state decides which gates apply") {
  const fs::path golden = "tests/golden/moue/half_staggered";
  const Report opened = bytes_of(golden / "source", golden / "model");
  INFO(failures(opened));
  CHECK(opened.passed());
  CHECK(outcome(opened, "G0 structure") == Outcome::Pass);
  CHECK(outcome(opened, "G0 bytes") == Outcome::NotApplicable);
  CHECK(outcome(opened, "G1") == Outcome::NotApplicable);
  CHECK_THAT(to_text(opened), Contains("not applicable: opened"));

  const Report expected = bytes_of(golden / "source", golden / "model", "closed");
  CHECK(outcome(expected, "state") == Outcome::Fail);
  CHECK(outcome(expected, "G1 closed") == Outcome::Fail);
  CHECK_THAT(failures(expected), Contains("state: opened, expected closed"));
  CHECK(outcome(bytes_of(golden / "source", golden / "model", "opened"), "state") == Outcome::Pass);
  CHECK_THROWS_WITH(bytes_of(golden / "source", golden / "model", "shut"), Contains("shut"));

  const Report ordinary = bytes_of(golden / "source", golden / "source");
  CHECK(ordinary.passed());
  CHECK(outcome(ordinary, "G0 bytes") == Outcome::NotApplicable);
  CHECK_FALSE(bytes_of(golden / "source", golden / "source", "closed").passed());
  CHECK_THROWS_WITH(bytes_of(golden / "model", golden / "source"),
                    Contains("[validate]") && Contains("is a MoUE, wanted the model that"));
}

TEST_CASE("another source's conversion fails") {
  const Scratch scratch;
  convert_to(kSources[0], scratch / "out");
  CHECK_FALSE(bytes_of(kSources[1], scratch / "out").passed());
  CHECK_THAT(failures(bytes_of(kSources[2], scratch / "out")),
             Contains("the result is of family mixtral, the source of qwen3_moe"));
}

TEST_CASE("the page is written beside the report") {
  const Scratch scratch;
  convert_to(kSources[0], scratch / "out");
  ValidateOptions options;
  options.only_bytes = true;
  options.html = scratch / "report.html";
  const Report report = validate(open_checkpoint(kSources[0]), scratch / "out", options);
  CHECK(file_text(scratch / "report.html") == to_html(report));
}

TEST_CASE("without LibTorch the gates that need it say how to get it") {
  const Scratch scratch;
  convert_to(kSources[0], scratch / "out");
  if (fs::exists(fs::read_symlink("/proc/self/exe").parent_path() / "libmoue_torch.so")) return;
  CHECK_THROWS_WITH(validate(open_checkpoint(kSources[0]), scratch / "out", {}),
                    Contains("[torch]") && Contains("libmoue_torch.so"));
}
