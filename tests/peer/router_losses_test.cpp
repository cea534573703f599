// Losses on routers: the z-loss beside differences of numbers, the families' own balance loss
// beside autograd, modes of balancing; and blocks that run twice.
#include "support/torch_test.h"

#include "support/tolerances.h"
#include "support/torch_pico.h"
#include "train/balance.h"
#include "train/loop.h"
#include "train/step.h"

namespace moue {
namespace {

using namespace test;

struct HalfOpen {
  PicoRun run;
  Checkpoint checkpoint = open_checkpoint("tests/golden/moue/half_staggered/model");
  std::unique_ptr<Model> model;
  StepSettings settings;
  explicit HalfOpen(at::ScalarType dtype = at::kFloat)
      : model(Model::open(checkpoint, {.dtype = dtype, .train = true})) {
    settings.micro_batch = 4;
    settings.alpha = 0.5;
    settings.f = uniform_shares(model->visibility());
    settings.target = balance_target(model->pool(), model->visibility(), 1.0, 0.1);
  }
  Batch batch() const { return TrainData(run.options, model->spec().vocabulary).batch(0); }

  std::vector<at::Tensor> gradients() {
    run_step(*model, batch(), settings);
    std::vector<at::Tensor> all;
    for (const Parameter& parameter : model->parameters()) all.push_back(parameter.grad.clone());
    return all;
  }
  // Mean over tokens and layers of the squared log-sum-exp, from the logits the routers report.
  double z_term() {
    const at::NoGradGuard no_grad;
    const Batch rows = batch();
    Pass pass;
    model->loss(rows.rows_BT1, rows.mask_BT, 1.0, pass);
    double sum = 0;
    for (const Routed& routed : pass.routed)
      sum += routed.z_TS.to(at::kDouble).logsumexp(1).square().mean().item<double>();
    return sum / static_cast<double>(pass.routed.size());
  }
};

// Largest difference of any gradient, relative to the largest of its tensor.
double difference(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].numel() == 0) continue;
    const double largest = a[i].abs().max().item<double>();
    if (largest > 0) worst = std::max(worst, (a[i] - b[i]).abs().max().item<double>() / largest);
  }
  return worst;
}

}  // namespace

TEST_CASE("the z-loss has the gradient of the mean squared log-sum-exp", "[peer][model]") {
  HalfOpen half;
  const std::vector<at::Tensor> without = half.gradients();
  half.settings.z_loss = 0.5;
  const std::vector<at::Tensor> with = half.gradients();
  int64_t compared = 0;
  for (size_t i = 0; i < with.size(); ++i) {
    Parameter& parameter = half.model->parameters()[i];
    const bool router = parameter.kind == ParameterKind::RouterBias ||
                        parameter.kind == ParameterKind::Gain ||
                        parameter.kind == ParameterKind::ForeignRow;
    if (!router || parameter.moe_layer != 3) continue;
    CAPTURE(parameter.name);
    const at::Tensor ours = (with[i] - without[i]).view({-1});
    const int64_t at = ours.abs().argmax().item<int64_t>();
    at::Tensor flat = parameter.master.detach().view({-1});
    const double start = flat[at].item<double>(), h = 2e-3;
    flat[at] = start + h;
    const double above = half.z_term();
    flat[at] = start - h;
    const double below = half.z_term();
    flat[at] = start;
    const double wanted = 0.5 * (above - below) / (2 * h);
    CHECK(ours[at].item<double>() == Approx(wanted).epsilon(0.03));
    CHECK(std::abs(wanted) > 1e-6);
    ++compared;
  }
  CHECK(compared == 3);
}

// Not bit for bit: what several blocks share gets its gradients in another order.
TEST_CASE("blocks that run again give the same gradients", "[peer][model]") {
  HalfOpen half;
  half.settings.z_loss = GENERATE(0.0, 0.1);
  half.settings.micro_batch = GENERATE(4, 2);
  half.settings.detach_trajectory = GENERATE(false, true);
  const std::vector<at::Tensor> once = half.gradients();
  half.settings.recompute = true;
  CHECK(difference(once, half.gradients()) <= tolerance::kMicroBatch);
  // Control: another balance loss is seen.
  half.settings.alpha = 50;
  CHECK(difference(once, half.gradients()) > 100 * tolerance::kMicroBatch);
}

TEST_CASE("the families' balance loss has the gradient of transformers' formula", "[peer][model]") {
  const int64_t L = 3, T = 40, N = 5, K = 2;
  const auto generator = at::detail::createCPUGenerator(3);
  const at::Tensor z =
      at::randn({L, T, N}, generator, at::TensorOptions().dtype(at::kDouble)).requires_grad_();
  // transformers joins the layers: tokens of all of them side by side.
  const at::Tensor prob = z.view({L * T, N}).softmax(1);
  const at::Tensor chosen = std::get<1>(prob.topk(K, 1));
  const at::Tensor mask = at::one_hot(chosen, N).to(at::kDouble);  // [L T, K, N]
  const at::Tensor loss = (mask.mean(0) * prob.mean(0).unsqueeze(0)).sum() * N;
  loss.backward();

  PerSlot f;
  for (int64_t layer = 0; layer < L; ++layer) {
    const at::Tensor share = mask.view({L, T, K, N})[layer].sum(at::IntArrayRef{0, 1}) / (K * T);
    f.emplace_back(share.data_ptr<double>(), share.data_ptr<double>() + N);
  }
  const auto gradient_of = [&](const PerSlot& rows) {
    at::Tensor all = at::empty({L, T, N}, at::kDouble);
    for (int64_t layer = 0; layer < L; ++layer) {
      const at::Tensor v = at::tensor(rows[layer], at::kDouble);
      const at::Tensor p = z.detach()[layer].softmax(1);
      all[layer].copy_(p * (v - (p * v).sum(1, true)) / (L * T));
    }
    return all;
  };
  const auto error = [&](const at::Tensor& ours) {
    return ((ours - z.grad()).abs().max() / z.grad().abs().max()).item<double>();
  };
  CHECK(error(gradient_of(family_gradient(f, K))) < 1e-12);
  CHECK(error(gradient_of(family_gradient(f, K + 1))) > 1e-2);
}

TEST_CASE("what balances is a choice, and refusals say for whom", "[train]") {
  PicoRun run;
  const auto trained = [&](const std::string& name) {
    train_model(run.model, run.out(name), run.options);
    return journal_lines(run.out(name));
  };
  run.options.steps = 12;
  run.options.alpha = 1.0;
  const auto universal = trained("universal");
  run.options.balance = "layer";
  const auto layer = trained("layer");
  CHECK(layer != universal);
  run.options.balance = "universal";
  run.options.eta = 1;
  CHECK(trained("eta") == layer);
  run.options.balance = "bias";
  const auto bias = trained("bias");
  run.options.balance = "universal";
  run.options.alpha = 0;
  CHECK(trained("alpha") == bias);

  run.options.balance = "family";
  CHECK_THAT(error_of([&] { trained("none"); }),
             Catch::Contains("balance is family, wanted with control"));
  run.options.control = true;
  run.options.alpha = 1.0;
  run.model = "tests/golden/moue/half_staggered/source";
  const auto family = trained("family");
  run.options.balance = "universal";
  CHECK(trained("ordinary") != family);
  run.options.balance = "bias";
  CHECK_THAT(error_of([&] { trained("none"); }), Catch::Contains("else nothing balances"));
}

}  // namespace moue
