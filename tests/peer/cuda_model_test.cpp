// The model on a CUDA device: the CPU's numbers, and a closed MoUE's bits. Each body takes the
// device, and the CPU half runs everywhere, so that the test itself is known to hold.
#include "support/torch_test.h"

#include <nlohmann/json.hpp>

#include "moue/convert.h"
#include "moue/plan.h"
#include "support/not_run.h"
#include "support/scratch.h"
#include "support/tolerances.h"
#include "support/torch_compare.h"
#include "support/torch_pico.h"
#include "train/loop.h"

using namespace moue;
using namespace moue::test;

namespace {

bool have_cuda() {
  if (at::globalContext().hasCUDA()) return true;
  did_not_run("LibTorch sees no CUDA device");
  return false;
}

struct Seen {
  at::Tensor logits;
  std::vector<Routed> routed;
  double loss = 0;
  std::map<std::string, at::Tensor> gradients;
};

at::Tensor host(const at::Tensor& x) { return x.detach().cpu(); }

// Logits, choices, loss and every gradient of one pass; visibility as on disk.
Seen run(const fs::path& directory, const at::Tensor& rows, at::Device device,
         at::ScalarType dtype) {
  const auto model = open_model(directory, {.dtype = dtype, .device = device, .train = true});
  Pass pass;
  Seen seen;
  {
    const at::NoGradGuard no_grad;
    seen.logits = host(model->logits(rows.narrow(1, 0, rows.size(1) - 1), pass));
    seen.routed = pass.routed;
  }
  model->zero_grad();
  const double scale = 1.0 / static_cast<double>(rows.size(0) * (rows.size(1) - 1));
  const at::Tensor loss = model->loss(rows, {}, scale, pass);
  loss.backward();
  model->finish_backward();
  seen.loss = host(pass.loss_sum).item<double>() * scale;
  for (const auto& [name, gradient] : gradients(*model)) seen.gradients[name] = host(gradient);
  return seen;
}

at::Tensor rows_of(int64_t vocabulary) {
  const at::Tensor all = at::arange(3 * 30, at::kLong);
  return ((all * all * 7 + 3 * all + 1) % vocabulary).view({3, 30});
}

void check_against_cpu(at::Device device) {
  for (const char* topology : {"aligned", "half_staggered", "ring_stride"}) {
    INFO(topology);
    const fs::path opened = fs::path("tests/golden/moue") / topology / "model";
    const Seen cpu = run(opened, rows_of(61), at::kCPU, at::kFloat);
    const Seen seen = run(opened, rows_of(61), device, at::kFloat);
    CHECK(relative_error(seen.logits, cpu.logits) <= tolerance::kGolden);
    CHECK(seen.loss == Approx(cpu.loss).epsilon(tolerance::kGolden));
    REQUIRE(seen.routed.size() == cpu.routed.size());
    for (size_t layer = 0; layer < cpu.routed.size(); ++layer) {
      CHECK(same_numbers(host(seen.routed[layer].chosen_TK), cpu.routed[layer].chosen_TK));
      CHECK(same_numbers(host(seen.routed[layer].count_S), cpu.routed[layer].count_S));
    }
    REQUIRE(seen.gradients.size() == cpu.gradients.size());
    for (const auto& [name, gradient] : cpu.gradients) {
      INFO(name);
      CHECK(relative_error(seen.gradients.at(name), gradient) <= tolerance::kGoldenGradient);
    }
    // Control: other tokens give other numbers.
    const Seen other = run(opened, rows_of(59), device, at::kFloat);
    CHECK(relative_error(other.logits, cpu.logits) > 100 * tolerance::kGolden);
  }
}

void check_closed(at::Device device) {
  const fs::path directory = "tests/golden/moue/aligned/source";
  const Checkpoint source = open_checkpoint(directory);
  const Family family = family_of(source.config());
  ScratchDir scratch;
  for (const std::string& topology : topology_names()) {
    const Plan plan = make_plan(source, family, nullptr, {.topology = topology});
    convert(source, plan, nullptr, scratch / topology, {});
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      INFO(topology << " " << dtype);
      const Seen before = run(directory, rows_of(61), device, dtype);
      const Seen after = run(scratch / topology, rows_of(61), device, dtype);
      CHECK(same_numbers(after.logits, before.logits));
      for (size_t layer = 0; layer < before.routed.size(); ++layer) {
        CHECK(same_numbers(after.routed[layer].chosen_TK, before.routed[layer].chosen_TK));
        CHECK(same_numbers(after.routed[layer].gate_TK, before.routed[layer].gate_TK));
      }
      CHECK_FALSE(same_numbers(run(directory, rows_of(59), device, dtype).logits, before.logits));
    }
  }
}

std::vector<double> losses(const fs::path& out) {
  std::vector<double> all;
  for (const std::string& line : journal_lines(out)) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains("loss") && json["loss"].is_number()) all.push_back(json["loss"]);
  }
  return all;
}

// Twenty steps through every stage on a device: the losses stay near the CPU's.
void check_training(const char* device) {
  PicoRun pico;
  CHECK(train_model(pico.model, pico.out("cpu"), pico.options).passed());
  pico.options.device = device;
  CHECK(train_model(pico.model, pico.out("device"), pico.options).passed());
  const std::vector<double> cpu = losses(pico.out("cpu")), seen = losses(pico.out("device"));
  REQUIRE(cpu.size() >= 20);
  REQUIRE(seen.size() == cpu.size());
  for (size_t i = 0; i < cpu.size(); ++i)
    CHECK(seen[i] == Approx(cpu[i]).epsilon(tolerance::kDeviceTraining));
  // Control: the bound is narrow beside what training changes.
  CHECK(std::abs(seen.back() - seen.front()) > 10 * tolerance::kDeviceTraining * seen.front());
}

}  // namespace

TEST_CASE("a pass of the model repeats itself", "[peer][model]") {
  check_against_cpu(at::kCPU);
  check_closed(at::kCPU);
  check_training("cpu");
}

TEST_CASE("the model on CUDA computes the CPU's numbers", "[peer][model][gpu]") {
  if (have_cuda()) check_against_cpu(at::Device(at::kCUDA, 0));
}

TEST_CASE("a closed MoUE on CUDA is bit-equal to its source", "[peer][model][gpu]") {
  if (have_cuda()) check_closed(at::Device(at::kCUDA, 0));
}

TEST_CASE("training on CUDA follows training on the CPU", "[peer][model][gpu]") {
  if (have_cuda()) check_training("cuda");
}
