// The program's convert: layouts without a plan, dry runs, cuts, and advice where a plan is too
// much.
#include <catch2/catch.hpp>

#include <nlohmann/json.hpp>

#include "checkpoint/manifest.h"
#include "support/files.h"
#include "support/layouts.h"
#include "support/program.h"

using namespace moue;
using namespace moue::test;

namespace {

const std::string kPico = "tests/golden/families/mixtral";

test::Outcome convert_by(const std::string& words) { return run("convert " + words); }

}  // namespace

TEST_CASE("there and back by the program", "[cli]") {
  const ScratchDir folder;
  const auto at = [&](const char* name) { return (folder / name).string(); };
  CHECK(convert_by(kPico + " --out " + at("linked")).code == 0);
  CHECK(
      convert_by(at("linked") + " --layout packed --shard_size 64KiB --out " + at("packed")).code ==
      0);
  const test::Outcome exported = convert_by(
      at("packed") + " --layout export --threads 1 --memory 2MiB --json --out " + at("e"));
  CHECK(exported.code == 0);
  CHECK(nlohmann::json::parse(exported.out).at("facts").at("state") == "ordinary");
  CHECK(digests_of(at("e")) == digests_of(kPico));
  CHECK(open_checkpoint(at("packed")).files().size() > 1);
  CHECK(run("validate --manifest " + at("packed")).code == 0);
  // What has no say in the result is not in its ledger, and no plan was made for it.
  const std::string recipe = read_manifest(at("packed")).recipe;
  CHECK(has(recipe, "layout = \"packed\""));
  CHECK(has(recipe, "shard_size = \"64KiB\""));
  CHECK_FALSE(has(recipe, "[plan]"));
  CHECK_FALSE(has(read_manifest(at("e")).recipe, "memory"));
  CHECK(has(read_manifest(at("linked")).recipe, "[plan]"));
}

TEST_CASE("a dry run leaves no file, not even its recipe", "[cli]") {
  const ScratchDir folder;
  const std::string recipe = pico_recipe(folder);
  const std::string before = listing(folder.path());
  const test::Outcome dry = convert_by("--recipe " + recipe + " --layout packed --dry_run");
  INFO(dry.err);
  CHECK(dry.code == 0);
  CHECK(has(dry.out, "bytes_to_write"));
  CHECK(has(dry.out, "peak_memory"));
  CHECK(listing(folder.path()) == before);
  CHECK(convert_by("--recipe " + recipe + " --layout packed").code == 0);
  CHECK(listing(folder.path()) != before);
}

TEST_CASE("a plan is refused where it has nothing to say", "[cli]") {
  const ScratchDir folder;
  const std::string moue = (folder / "moue").string(), out = (folder / "out").string();
  CHECK(convert_by(kPico + " --out " + moue).code == 0);
  test::Outcome refused = convert_by(moue + " --plan plan.json --layout packed --out " + out);
  CHECK(refused.code == 2);
  CHECK(has(refused.err, "[convert] convert.plan is given, but " + moue +
                             " is a MoUE already and is only written in another layout; leave it "
                             "out"));
  refused = convert_by(kPico + " --statistics s --layers 0:1 --out " + out);
  CHECK(refused.code == 2);
  CHECK(has(refused.err, "is to stay an ordinary model; leave it out"));
  refused = convert_by(kPico + " --layers 1 --out " + out);
  CHECK(has(refused.err, "layers is '1', wanted FIRST:LAST"));
  CHECK_FALSE(std::filesystem::exists(out));
  CHECK(convert_by(kPico + " --layers 1:3 --out " + out).code == 0);
  CHECK(run("inspect " + out).code == 0);
}
