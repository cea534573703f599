// similarity on a model's own tokens: CKA computed plainly, and what donors cost in loss.
#include "support/torch_test.h"

#include "model/similarity.h"
#include "model/statistics.h"
#include "model/windows.h"
#include "moue/measure.h"
#include "support/headers_only.h"
#include "support/tolerances.h"
#include "support/torch_compare.h"

using namespace moue;
using namespace moue::test;

namespace {

const char* const kTiny = "examples/tiny-mixtral";
const char* const kHeldOut = "examples/tiny-mixtral/data/held_out.u16";

MeasureOptions options_of(int64_t reach, int64_t trials, int64_t tokens) {
  MeasureOptions options;
  options.tokens = kHeldOut;
  options.max_tokens = tokens;
  options.reach = reach;
  options.replace = trials;
  options.samples = 128;
  return options;
}

// One expert on xhat, in float64, from the weights of the model.
at::Tensor outputs(Model& model, int64_t physical, const at::Tensor& xhat) {
  const Home home = model.pool().home[physical];
  at::Tensor gain, gate_up, down;
  for (const Parameter& p : model.parameters()) {
    const std::string norm =
        "model.layers." + std::to_string(home.layer) + ".post_attention_layernorm.weight";
    if (p.name == norm) gain = p.value.to(at::kDouble);
    if (p.name == "experts.gate_up") gate_up = p.value[physical].to(at::kDouble);
    if (p.name == "experts.down") down = p.value[physical].to(at::kDouble);
  }
  const at::Tensor h = at::linear(xhat.to(at::kDouble) * gain, gate_up);
  const at::Tensor y = at::linear(
      at::silu(h.narrow(1, 0, h.size(1) / 2)) * h.narrow(1, h.size(1) / 2, h.size(1) / 2), down);
  return y - y.mean(0, true);
}

at::Tensor parameter(Model& model, const std::string& name) {
  for (const Parameter& p : model.parameters()) {
    if (p.name == name) return p.value.detach();
  }
  throw std::logic_error("no parameter " + name);
}

// Overwrites an expert with a donor, whose norm is folded into its weights, its output scaled.
void put(Model& model, Home donor, Home at, const std::vector<double>& rms) {
  const auto gain = [&](Home home) {
    return parameter(
        model, "model.layers." + std::to_string(home.layer) + ".post_attention_layernorm.weight");
  };
  const at::Tensor gate_up = parameter(model, "experts.gate_up"),
                   down = parameter(model, "experts.down");
  gate_up[at.layer * 8 + at.expert].copy_(gate_up[donor.layer * 8 + donor.expert] * gain(donor) /
                                          gain(at));
  down[at.layer * 8 + at.expert].copy_(down[donor.layer * 8 + donor.expert] *
                                       (rms[at.layer] / rms[donor.layer]));
}

double cka(const at::Tensor& a, const at::Tensor& b) {
  const auto cross = [](const at::Tensor& x, const at::Tensor& y) {
    return at::mm(x.t(), y).square().sum().item<double>();
  };
  return cross(a, b) / std::sqrt(cross(a, a) * cross(b, b));
}

}  // namespace

TEST_CASE("scores on tokens are linear CKA of the sampled inputs", "[peer][measure]") {
  const auto model = open_model(kTiny);
  // One window of 64 inputs and 64 samples: every token is one.
  const TokenFile tokens = open_tokens(kHeldOut, "", 64, 2048);
  const at::Tensor windows = windows_of(tokens, 64, 1);
  std::vector<at::Tensor> xhat(8);
  Pass pass;
  pass.observer = [&](const MoeView& view) { xhat[view.moe_layer] = view.xhat_TD.clone(); };
  const at::NoGradGuard no_grad;
  model->logits(windows.narrow(1, 0, 64), pass);
  const Likeness seen = compare_experts(*model, windows, 16, 1, 64);
  CHECK(seen.similarity.samples == 64);
  for (const int64_t layer : {0, 4}) {
    const int64_t donor = 8 * (layer + 1) + 3;
    const at::Tensor theirs = outputs(*model, donor, xhat[layer]);
    double best = 0;
    for (int64_t i = 0; i < 8; ++i) {
      const double wanted = cka(outputs(*model, 8 * layer + i, xhat[layer]), theirs);
      CHECK(std::abs(seen.cka_NR[layer][i][2 * 8 + 3].item<double>() - wanted) < tolerance::kCka);
      best = std::max(best, wanted);
    }
    CHECK(std::abs(seen.similarity.score[layer][donor] - best) < tolerance::kCka);
    // Control: behind another layer's norm, on another layer's tokens, it is another number.
    CHECK(std::abs(cka(outputs(*model, 8 * layer, xhat[layer + 1]),
                       outputs(*model, donor, xhat[layer + 1])) -
                   seen.cka_NR[layer][0][2 * 8 + 3].item<double>()) > 100 * tolerance::kCka);
    CHECK(seen.similarity.score[layer][8 * layer] == Similarity::kUnknown);
    CHECK(seen.similarity.score[layer][8 * ((layer + 2) % 8)] == Similarity::kUnknown);
  }
  CHECK(model->pool().slots == vanilla_pool(open_checkpoint(kTiny).config(), model->spec()).slots);
}

TEST_CASE("a trial's losses are those of a model with the donor in the expert's place",
          "[peer][measure]") {
  const Checkpoint source = open_checkpoint(kTiny);
  const Statistics seen = measure(source, nullptr, options_of(2, 3, 1024));
  REQUIRE(seen.replacements.size() == 3);
  const at::NoGradGuard no_grad;
  const at::Tensor windows = windows_of(open_tokens(kHeldOut, "", 256, 2048), 256, 4);
  for (const Replacement& r : seen.replacements) {
    CHECK(r.best_score >= r.random_score);
    CHECK(std::abs(r.best.layer - r.replaced.layer) <= 2);
    CHECK(std::abs(r.random.layer - r.replaced.layer) <= 2);
    CHECK(r.random.layer != r.replaced.layer);
    CHECK_FALSE(r.best == r.random);
    for (const auto& [donor, loss] :
         {std::pair{r.best, r.best_loss}, std::pair{r.random, r.random_loss}}) {
      const auto model = open_model(kTiny);
      put(*model, donor, r.replaced, seen.output_rms);
      CHECK(std::abs(evaluate(*model, windows, 4).loss - loss) < tolerance::kHeldOutLoss);
    }
    // Control: either donor changes the loss, and not alike.
    CHECK(std::abs(r.best_loss - r.random_loss) > 1e-7);
    CHECK(std::abs(r.best_loss - seen.loss) > 1e-7);
  }
  const Statistics again = measure(source, nullptr, options_of(2, 1, 1024));
  CHECK(again.replacements[0].best_loss == seen.replacements[0].best_loss);
  CHECK(again.similarity.score == seen.similarity.score);
}

TEST_CASE("measure refuses comparisons that mean nothing", "[peer][measure]") {
  const Checkpoint source = open_checkpoint(kTiny);
  const auto refused = [&](const Checkpoint& model, const MeasureOptions& options) {
    return message_of([&] { measure(model, nullptr, options); });
  };
  CHECK(contains(refused(source, options_of(0, 5, 512)),
                 "[measure] replace is 5, wanted 0 while reach is 0"));
  CHECK(contains(refused(open_checkpoint("tests/golden/moue/aligned/model"), options_of(1, 0, 512)),
                 "[measure] reach is 1, wanted 0: "));
}
