// A run in a family with a correction: calibrated in place of beta, kept while training, saved.
#include "support/torch_test.h"

#include "moue/convert.h"
#include "moue/model.h"
#include "moue/plan.h"
#include "support/torch_pico.h"
#include "train/loop.h"

namespace moue {
namespace {

using namespace test;

const char* const kSource = "tests/golden/families/deepseek_v3";

void convert_source(const fs::path& to) {
  const Checkpoint source = open_checkpoint(kSource);
  const Plan plan =
      make_plan(source, family_of(source.config()), nullptr, {.topology = "half_staggered"});
  convert(source, plan, nullptr, to, {});
}

std::vector<double> values(const Checkpoint& checkpoint, const std::string& name) {
  return checkpoint.files()[checkpoint.at(name).file].values(name);
}

}  // namespace

TEST_CASE("a run calibrates the correction and keeps it", "[train]") {
  PicoRun run;
  fs::remove_all(run.model);
  convert_source(run.model);
  train_model(run.model, run.out("run"), run.options);
  const Checkpoint start = open_checkpoint(run.model),
                   trained = open_checkpoint(run.out("run") / "step-000020");
  const Pool pool = read_pool(trained.config());
  const auto model = Model::open(trained, {});
  const auto source = Model::open(open_checkpoint(kSource), {});
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    const std::vector<double> c = values(trained, names::router_correction(layer));
    CHECK(c.size() == static_cast<size_t>(pool.num_foreign(layer)));
    CHECK(c != values(start, names::router_correction(layer)));

    // What was saved is what a model opens; the source's own part never moved.
    const at::Tensor all = model->correction(layer).to(at::kDouble);
    const int64_t N = pool.experts_per_layer;
    CHECK(at::equal(all.narrow(0, N, pool.num_foreign(layer)), at::tensor(c, at::kDouble)));
    CHECK(at::equal(all.narrow(0, 0, N), source->correction(layer).to(at::kDouble)));
    CHECK_FALSE(at::equal(all.narrow(0, 0, N), at::zeros({N}, at::kDouble)));
  }

  // The pool bias moves by whole steps, whatever the shares: beside sigmoids the sign decides.
  bool moved = false;
  for (const double b : values(trained, names::kPoolBias)) {
    const double steps = b / run.options.pool_bias;
    CHECK(std::abs(steps - std::round(steps)) < 1e-3);
    moved = moved || b != 0;
  }
  CHECK(moved);
}

}  // namespace moue
