// Held-out loss of the example against the one transformers computed (its README).
#include "support/torch_test.h"

#include "model/windows.h"
#include "support/tolerances.h"
#include "support/torch_compare.h"

using namespace moue;
using namespace moue::test;

TEST_CASE("held-out loss of tiny-mixtral is transformers'", "[peer][model]") {
  const auto model = open_model("examples/tiny-mixtral");
  const TokenFile tokens = open_tokens("examples/tiny-mixtral/data/held_out.u16", "", 256, 2048);
  const at::Tensor windows = windows_of(tokens, 256);
  REQUIRE(windows.size(0) == 440);
  const Evaluation seen = evaluate(*model, windows, 16);
  CHECK(seen.tokens == 440 * 256);
  CHECK(std::abs(seen.loss - 3.239862) <= tolerance::kHeldOutLoss);
  CHECK(seen.foreign_share == 0);
  CHECK(seen.standard_error > 0.01);
  CHECK(seen.standard_error < 0.1);

  // Control: a model whose experts moved by one is another model.
  for (Parameter& parameter : model->parameters()) {
    if (parameter.kind == ParameterKind::Expert)
      parameter.value.copy_(parameter.value.roll(1, 0).clone());
  }
  CHECK(evaluate(*model, windows.narrow(0, 0, 16), 16).loss >
        3.239862 + 100 * tolerance::kHeldOutLoss);
}
