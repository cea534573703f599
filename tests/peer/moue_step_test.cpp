// A whole training step against the reference implementation of docs/method.md: in 1, 2 and 3
// micro-batches, with recomputation, with a detached trajectory, in bfloat16.
#include "support/torch_test.h"

#include "support/tolerances.h"
#include "support/torch_compare.h"
#include "support/torch_golden.h"
#include "train/step.h"

using namespace moue;
using namespace moue::test;

namespace {

constexpr double kAlpha = 0.01, kKappa = 1.0, kEta = 0.1;  // of the recorded loss

struct Manner {
  int64_t micro_batch = 3;
  bool recompute = false, detach = false;
  at::ScalarType dtype = at::kFloat;
};

// What the recorded model is taught, and shares as the last step would have left them: those of
// this batch, as the reference takes them.
struct Recorded {
  SafetensorsFile expected;
  std::unique_ptr<Model> model;
  Batch batch;
  PerSlot f;

  Recorded(const std::string& topology, at::ScalarType dtype)
      : expected(golden_moue(topology) / "expected.safetensors"),
        model(open_model(golden_moue(topology) / "model", {.dtype = dtype, .train = true})) {
    const GoldenRows rows(read_tensor(expected, "tokens"));
    batch = {rows.rows, rows.mask, rows.mask.sum().item<int64_t>()};
    const at::NoGradGuard no_grad;
    Pass pass;
    model->loss(batch.rows_BT1, batch.mask_BT, 1, pass);
    RouterSums sums;
    for (const Routed& routed : pass.routed) {
      const at::Tensor count = routed.count_S.to(at::kDouble);
      sums.chosen.emplace_back(count.data_ptr<double>(), count.data_ptr<double>() + count.numel());
    }
    f = shares_of(sums).f;
  }

  // Gradients by name on disk; `taught` false: of the balance loss alone, its coefficient 1.
  std::map<std::string, at::Tensor> step(const Manner& manner, bool taught = true,
                                         bool running = false) {
    Batch some = batch;
    if (!taught) {
      some.mask_BT = at::zeros_like(batch.mask_BT);
      some.num_targets = 0;
    }
    run_step(*model, some,
             {.micro_batch = manner.micro_batch,
              .detach_trajectory = manner.detach,
              .alpha = taught ? kAlpha : 1,
              .recompute = manner.recompute,
              .running = running,
              .f = f,
              .target = balance_target(model->pool(), model->visibility(), kKappa, kEta)});
    return gradients(*model);
  }
};

// Distance of all recorded gradients under a prefix from ours, relative to their length.
double distance(const SafetensorsFile& expected, const std::string& prefix,
                const std::map<std::string, at::Tensor>& ours) {
  double apart = 0, length = 0;
  for (const TensorInfo& info : expected.tensors()) {
    if (!info.name.starts_with(prefix)) continue;
    const at::Tensor wanted = read_tensor(expected, info.name),
                     seen = golden_gradient(ours, info.name.substr(prefix.size()));
    apart += (seen.to(at::kDouble) - wanted).square().sum().item<double>();
    length += wanted.square().sum().item<double>();
  }
  return std::sqrt(apart / length);
}

}  // namespace

TEST_CASE("a step has the reference's gradients however it is cut and computed", "[peer][train]") {
  const std::string topology = GENERATE(from_range(golden_topologies()));
  Recorded recorded(topology, at::kFloat);
  for (const int64_t micro_batch : {3, 2, 1}) {
    for (const bool recompute : {false, true}) {
      INFO(topology << ", " << micro_batch << " rows a micro-batch, recompute " << recompute);
      Manner manner{micro_batch, recompute};
      CHECK(compare_gradients(recorded.expected, "open.grad.", recorded.step(manner)) ==
            6 * 13 + 6);
      CHECK(compare_gradients(recorded.expected, "open.balance.grad.",
                              recorded.step(manner, false)) == 6 * 6 + 3);
      manner.detach = true;
      CHECK(compare_gradients(recorded.expected, "open.detach.grad.", recorded.step(manner)) ==
            6 + 3);
    }
  }
  // Controls: the other trajectory, and counts of each micro-batch in place of the step's.
  constexpr double kFar = 10 * tolerance::kGoldenGradient;
  CHECK(distance(recorded.expected, "open.detach.grad.", recorded.step({})) > kFar);
  CHECK(distance(recorded.expected, "open.balance.grad.", recorded.step({1}, false, true)) > kFar);
  CHECK(distance(recorded.expected, "open.balance.grad.", recorded.step({1}, false)) < kFar);
}
