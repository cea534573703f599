// Every mutant of a conversion is found by a gate of validate, or refused, when all gates run.
#include "support/torch_test.h"

#include "moue/convert.h"
#include "moue/plan.h"
#include "moue/validate.h"
#include "support/mutants.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

// The gates that found it.
std::string found_by(const Checkpoint& source, const fs::path& result) {
  std::string gates;
  for (const Check& check : validate(source, result, {}).checks) {
    if (check.outcome == Outcome::Fail) gates += check.name + "; ";
  }
  return gates;
}

}  // namespace

TEST_CASE("every mutant is found by a gate", "[peer][validate]") {
  const fs::path directory =
      GENERATE(fs::path("examples/tiny-mixtral"), fs::path("tests/golden/families/qwen3_moe"));
  const Checkpoint source = open_checkpoint(directory);
  const Plan plan =
      make_plan(source, family_of(source.config()), nullptr, {.topology = "half_staggered"});
  ScratchDir scratch;
  convert(source, plan, nullptr, scratch / "good", {});
  CHECK(found_by(source, scratch / "good").empty());  // the original is not found
  REQUIRE(mutants().size() >= 40);
  for (const Mutant& mutant : mutants()) {
    INFO(mutant.name);
    write_mutant(mutant, scratch / "good", scratch / "mutant");
    const std::string gates = found_by(source, scratch / "mutant");
    CHECK_FALSE(gates.empty());
    fs::remove_all(scratch / "mutant");
  }
}
