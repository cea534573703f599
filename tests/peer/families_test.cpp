// Logits and hidden states of every family against what transformers computed for the same pico
// checkpoint.
#include "support/torch_test.h"

#include "support/tolerances.h"
#include "support/torch_compare.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

// The inputs of all layers and the normalised output, [B, length, D] each.
std::vector<at::Tensor> hidden_states(Model& model, const at::Tensor& tokens) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> hidden;
  Pass pass;
  pass.hidden_observer = [&](int64_t layer, const at::Tensor& x) {
    REQUIRE(layer == static_cast<int64_t>(hidden.size()));
    hidden.push_back(x.view({tokens.size(0), tokens.size(1), x.size(1)}).clone());
  };
  model.logits(tokens, pass);
  return hidden;
}

double worst_hidden(Model& model, const SafetensorsFile& expected, const at::Tensor& tokens) {
  const std::vector<at::Tensor> hidden = hidden_states(model, tokens);
  double worst = 0;
  for (size_t layer = 0; layer < hidden.size(); ++layer) {
    const at::Tensor wanted = read_tensor(expected, "hidden." + std::to_string(layer));
    worst = std::max(worst, relative_error(hidden[layer], wanted));
  }
  REQUIRE(static_cast<int64_t>(hidden.size()) == model.spec().layers + 1);
  return worst;
}

}  // namespace

TEST_CASE("logits and hidden states agree with transformers", "[peer][model]") {
  REQUIRE(golden_families().size() >= 16);
  for (const fs::path& directory : golden_families()) {
    INFO(directory);
    const SafetensorsFile expected(directory / "expected.safetensors");
    const at::Tensor tokens = read_tensor(expected, "tokens"),
                     wanted = read_tensor(expected, "logits");
    const auto model = open_model(directory);
    const double bound =
        directory.filename() == "minimax" ? tolerance::kMiniMaxLogits : tolerance::kFamilyLogits;
    CHECK(relative_error(logits_of(*model, tokens), wanted) <= bound);
    CHECK(worst_hidden(*model, expected, tokens) <= bound);

    // Controls: another order of tokens, and experts moved by one, must show.
    CHECK(relative_error(logits_of(*model, tokens.flip(1)), wanted) >
          100 * tolerance::kFamilyLogits);
    for (Parameter& parameter : model->parameters()) {
      if (parameter.kind == ParameterKind::Expert)
        parameter.value.copy_(parameter.value.roll(1, 0).clone());
    }
    CHECK(relative_error(logits_of(*model, tokens), wanted) > 100 * tolerance::kFamilyLogits);
    CHECK(worst_hidden(*model, expected, tokens) > 100 * tolerance::kFamilyLogits);
  }
}

TEST_CASE("bfloat16 logits are near float32's", "[peer][model]") {
  for (const fs::path& directory : golden_families()) {
    INFO(directory);
    const SafetensorsFile expected(directory / "expected.safetensors");
    const at::Tensor tokens = read_tensor(expected, "tokens"),
                     wanted = read_tensor(expected, "logits");
    const auto model = open_model(directory, {.dtype = at::kBFloat16});
    const auto median_error = [&](const at::Tensor& seen) {
      return ((seen.to(at::kDouble) - wanted).abs() / wanted.abs().max()).median().item<double>();
    };
    CHECK(median_error(logits_of(*model, tokens)) <= tolerance::kFamilyBFloat16);
    // Control: the same with another order of tokens.
    CHECK(median_error(logits_of(*model, tokens.flip(1))) > 2 * tolerance::kFamilyBFloat16);
  }
}

TEST_CASE("weights fetched on demand give the same bits", "[peer][model]") {
  for (const fs::path& directory :
       {fs::path("examples/tiny-mixtral"), fs::path("tests/golden/families/qwen3_moe")}) {
    INFO(directory);
    const at::Tensor tokens = at::arange(40).view({2, 20});
    const auto resident = open_model(directory),
               streamed = open_model(directory, {.memory = 16 << 20});
    CHECK(same_numbers(logits_of(*resident, tokens), logits_of(*streamed, tokens)));
    CHECK_FALSE(same_numbers(logits_of(*resident, tokens.flip(1)), logits_of(*streamed, tokens)));
  }
}
