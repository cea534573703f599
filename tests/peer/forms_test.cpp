// Twins of a model in another form of its family: the same slots, the same logits.
#include "support/torch_test.h"

#include "moue/plan.h"
#include "support/scratch.h"
#include "support/torch_compare.h"
#include "support/twin.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

at::Tensor tokens() { return at::arange(46).view({2, 23}); }

Plan plan_of(const Checkpoint& source) {
  return make_plan(source, family_of(source.config()), nullptr, {});
}

}  // namespace

TEST_CASE("per expert, fused and stacked twins are one model", "[peer][model]") {
  int64_t twins = 0;
  for (const fs::path& directory : golden_families()) {
    const Checkpoint source = open_checkpoint(directory);
    const Family& family = family_of(source.config());
    const Claims claims = claim(source, family);
    for (size_t form = 0; form < family.forms.size(); ++form) {
      const std::string_view name = family.forms[form].name;
      if (name == "MXFP4" || name == claims.form()) continue;
      INFO(directory << " as " << name);
      const ScratchDir scratch;
      write_twin(source, form, scratch / "twin");
      const Checkpoint twin = open_checkpoint(scratch / "twin");
      CHECK(claim(twin, family).form() == name);
      CHECK(plan_of(twin).pool.slots == plan_of(source).pool.slots);
      CHECK((plan_of(twin).pool.home == plan_of(source).pool.home));
      const at::Tensor wanted = logits_of(*open_model(directory), tokens());
      const auto model = open_model(scratch / "twin");
      CHECK(same_numbers(logits_of(*model, tokens()), wanted));
      ++twins;

      // Control: experts in another place are another model.
      for (Parameter& parameter : model->parameters()) {
        if (parameter.kind == ParameterKind::Expert)
          parameter.value.copy_(parameter.value.roll(1, 0).clone());
      }
      CHECK_FALSE(same_numbers(logits_of(*model, tokens()), wanted));
    }
  }
  CHECK(twins >= 13);
}
