// Every family's MoUE with half of its foreign slots open: a finite loss, gradients where they
// belong, K experts a token, foreign ones among them.
#include "support/torch_test.h"

#include "moue/convert.h"
#include "moue/plan.h"
#include "support/scratch.h"
#include "support/torch_compare.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

// The first half of each layer's foreign slots.
Visibility half_open(const Pool& pool) {
  Visibility m = closed_visibility(pool);
  for (auto& layer : m) {
    const auto foreign = static_cast<int64_t>(layer.size()) - pool.experts_per_layer;
    std::fill_n(layer.begin() + pool.experts_per_layer, (foreign + 1) / 2, 1.0);
  }
  return m;
}

struct Opened {
  Checkpoint source;
  ScratchDir scratch;
  std::unique_ptr<Model> model;
  at::Tensor rows;
  Pass pass;
  double loss = 0;

  explicit Opened(const fs::path& directory) : source(open_checkpoint(directory)) {
    const Plan plan = make_plan(source, family_of(source.config()), nullptr, {.state_dim = 8});
    convert(source, plan, nullptr, scratch / "model", {});
    model = open_model(scratch / "model", {.train = true});
    at::manual_seed(7);
    rows = at::randint(0, model->spec().vocabulary, {3, 58}, at::kLong);
    // At their start of zero, gains keep the gradient from keys, queries and decay.
    const at::NoGradGuard no_grad;
    for (Parameter& parameter : model->parameters()) {
      if (parameter.kind == ParameterKind::Gain) parameter.value.normal_(0, 0.3);
    }
  }

  void step(const Visibility& visibility) {
    model->set_visibility(visibility);
    model->zero_grad();
    const at::Tensor sum = model->loss(rows, {}, 1.0 / (3 * 57), pass);
    sum.backward();
    model->finish_backward();
    loss = sum.item<double>();
  }
};

bool is_zero(const at::Tensor& x) { return x.eq(0).all().item<bool>(); }

bool is_foreign(ParameterKind kind) {
  return kind == ParameterKind::ForeignRow || kind == ParameterKind::RouterBias ||
         kind == ParameterKind::RouterScale;
}

void check_gradients(Opened& opened) {
  const int64_t N = opened.model->pool().experts_per_layer;
  for (const Parameter& parameter : opened.model->parameters()) {
    INFO(parameter.name);
    CHECK(parameter.grad.isfinite().all().item<bool>());
    if (parameter.kind == ParameterKind::Trajectory) CHECK_FALSE(is_zero(parameter.grad));
    // The state is zero before the first routed layer.
    if (parameter.kind == ParameterKind::Gain)
      CHECK(is_zero(parameter.grad) == (parameter.moe_layer == 0));
    if (!is_foreign(parameter.kind)) continue;
    const int64_t foreign = opened.model->pool().num_foreign(parameter.moe_layer);
    const int64_t open = (foreign + 1) / 2;
    CHECK(foreign + N ==
          static_cast<int64_t>(opened.model->pool().slots[parameter.moe_layer].size()));
    CHECK_FALSE(is_zero(parameter.grad.narrow(0, 0, open)));
    CHECK(is_zero(parameter.grad.narrow(0, open, foreign - open)));
  }
}

void check_choices(const Opened& opened) {
  const Pool& pool = opened.model->pool();
  const int64_t N = pool.experts_per_layer, K = opened.model->spec().experts_per_token;
  REQUIRE(static_cast<int64_t>(opened.pass.routed.size()) == pool.num_moe_layers());
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    INFO("MoE layer " << layer);
    const Routed& routed = opened.pass.routed[layer];
    const int64_t open = N + (pool.num_foreign(layer) + 1) / 2;
    CHECK(routed.chosen_TK.size(1) == K);
    CHECK(routed.chosen_TK.lt(open).all().item<bool>());
    const at::Tensor sorted = std::get<0>(routed.chosen_TK.sort(1));
    if (K > 1) CHECK(sorted.diff().gt(0).all().item<bool>());
    CHECK(routed.chosen_TK.ge(N).any().item<bool>());
    CHECK(routed.gate_TK.ge(0).all().item<bool>());
  }
}

}  // namespace

TEST_CASE("every family's MoUE works half open", "[peer][model]") {
  const fs::path directory = GENERATE(from_range(golden_families()));
  INFO(directory);
  Opened opened(directory);
  opened.step(half_open(opened.model->pool()));
  CHECK(std::isfinite(opened.loss));
  CHECK(opened.loss > 0);
  check_choices(opened);
  check_gradients(opened);

  // Control: closed, nothing reaches what is foreign.
  const double half_open_loss = opened.loss;
  opened.step(closed_visibility(opened.model->pool()));
  CHECK(opened.loss != half_open_loss);
  for (const Parameter& parameter : opened.model->parameters()) {
    INFO(parameter.name);
    if (is_foreign(parameter.kind)) CHECK(is_zero(parameter.grad));
  }
}
