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
  return y;
}

at::Tensor centred(const at::Tensor& y) { return y - y.mean(0, true); }

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

// One window of 64 inputs and 64 samples: every token is one.
struct Sampled {
  std::unique_ptr<Model> model = open_model(kTiny);
  at::Tensor windows = windows_of(open_tokens(kHeldOut, "", 64, 2048), 64, 1);
  std::vector<at::Tensor> xhat{8}, chosen{8}, gate{8};
  Statistics measured;

  Sampled() {
    const at::NoGradGuard no_grad;
    measured = collect_statistics(*model, nullptr, 0.02, windows, 1);
    Pass pass;
    pass.observer = [&](const MoeView& view) {
      xhat[view.moe_layer] = view.xhat_TD.clone();
      chosen[view.moe_layer] = view.routed->chosen_TK.clone();
      gate[view.moe_layer] = view.routed->gate_TK.to(at::kDouble);
    };
    model->logits(windows.narrow(1, 0, 64), pass);
  }
  // 1 / (1 + e) by plain loops.
  double output_score(int64_t layer, int64_t own, int64_t donor, double scale) {
    const at::Tensor y = outputs(*model, 8 * layer + own, xhat[layer]);
    const at::Tensor z = outputs(*model, donor, xhat[layer]) * scale;
    double error = 0, squares = 0;
    for (int64_t t = 0; t < 64; ++t) {
      for (int64_t k = 0; k < 2; ++k) {
        if (chosen[layer][t][k].item<int64_t>() != own) continue;
        const double g = gate[layer][t][k].item<double>();
        error += g * g * (z[t] - y[t]).square().sum().item<double>();
        squares += g * g * y[t].square().sum().item<double>();
      }
    }
    return 1 / (1 + error / squares);
  }
};

TEST_CASE("scores on tokens are linear CKA of the sampled inputs", "[peer][measure]") {
  Sampled s;
  const at::NoGradGuard no_grad;
  const Likeness seen = compare_experts(*s.model, s.measured, s.windows, 16, {"cka", 1, 64});
  CHECK(seen.similarity.samples == 64);
  CHECK(seen.similarity.kind == "cka");
  for (const int64_t layer : {0, 4}) {
    const int64_t donor = 8 * (layer + 1) + 3;
    const at::Tensor theirs = centred(outputs(*s.model, donor, s.xhat[layer]));
    double best = 0;
    for (int64_t i = 0; i < 8; ++i) {
      const at::Tensor own = centred(outputs(*s.model, 8 * layer + i, s.xhat[layer]));
      const double wanted = cka(own, theirs);
      CHECK(std::abs(seen.score_NR[layer][i][2 * 8 + 3].item<double>() - wanted) < tolerance::kCka);
      best = std::max(best, wanted);
    }
    CHECK(std::abs(seen.similarity.score[layer][donor] - best) < tolerance::kCka);
    // Control: behind another layer's norm, on another layer's tokens, it is another number.
    CHECK(std::abs(cka(centred(outputs(*s.model, 8 * layer, s.xhat[layer + 1])),
                       centred(outputs(*s.model, donor, s.xhat[layer + 1]))) -
                   seen.score_NR[layer][0][2 * 8 + 3].item<double>()) > 100 * tolerance::kCka);
    CHECK(seen.similarity.score[layer][8 * layer] == Similarity::kUnknown);
    CHECK(seen.similarity.score[layer][8 * ((layer + 2) % 8)] == Similarity::kUnknown);
  }
  CHECK(s.model->pool().slots ==
        vanilla_pool(open_checkpoint(kTiny).config(), s.model->spec()).slots);
}

TEST_CASE("scores of outputs are errors where the model uses the expert", "[peer][measure]") {
  Sampled s;
  const at::NoGradGuard no_grad;
  const Likeness seen = compare_experts(*s.model, s.measured, s.windows, 16, {"output", 7, 64});
  CHECK(seen.similarity.kind == "output");
  for (const int64_t layer : {1, 5}) {
    for (const int64_t other : {0, 6}) {
      const double scale = s.measured.output_rms[layer] / s.measured.output_rms[other];
      for (int64_t own = 0; own < 8; ++own) {
        const bool is_used = s.chosen[layer].eq(own).any().item<bool>();
        const double score = seen.score_NR[layer][own][(other - layer + 7) * 8 + 2].item<double>();
        if (!is_used) {
          CHECK(score == Similarity::kUnknown);
          continue;
        }
        CHECK(score ==
              Approx(s.output_score(layer, own, 8 * other + 2, scale)).margin(tolerance::kCka));
        // Controls: unscaled, and another donor.
        CHECK(std::abs(score - s.output_score(layer, own, 8 * other + 2, 1)) > tolerance::kCka);
        CHECK(std::abs(score - s.output_score(layer, own, 8 * other + 3, scale)) > tolerance::kCka);
      }
    }
  }
}

TEST_CASE("the best donor costs less than a random one in most trials", "[peer][measure]") {
  MeasureOptions options = options_of(7, 20, 4096);
  options.samples = 2048;
  const Statistics seen = measure(open_checkpoint(kTiny), nullptr, options);
  int64_t wins = 0;
  for (const Replacement& r : seen.replacements) wins += r.best_loss < r.random_loss;
  CHECK(wins > 10);
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
