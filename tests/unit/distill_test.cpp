// Distillation in the model and in a run: gradients by torch's autograd of the plain formula, no
// divergence while the model is its teacher, masks, resuming, and weights that are in memory once.
#include "support/torch_test.h"

#include <nlohmann/json.hpp>

#include "model/ops.h"
#include "support/tolerances.h"
#include "support/torch_blocks.h"
#include "support/torch_compare.h"
#include "support/torch_pico.h"
#include "train/loop.h"
#include "train/trainer.h"

namespace moue {
namespace {

using namespace test;
using Json = nlohmann::ordered_json;

const fs::path kStudent = "tests/golden/moue/half_staggered/model";
const fs::path kTeacher = "tests/golden/moue/half_staggered/source";

// Summed over counted targets, in double: (1 - share) CE + share t^2 KL(p || q).
at::Tensor plain_loss(const at::Tensor& logits, const at::Tensor& teacher, const at::Tensor& target,
                      double share, double t) {
  const at::Tensor counted = target.ge(0).to(at::kDouble);
  const at::Tensor chosen =
      logits.log_softmax(1).gather(1, target.clamp_min(0).unsqueeze(1)).squeeze(1);
  const at::Tensor p = (teacher / t).log_softmax(1), q = (logits / t).log_softmax(1);
  const at::Tensor divergence = t * t * (p.exp() * (p - q)).sum(1);
  return (((1 - share) * -chosen + share * divergence) * counted).sum();
}

struct Setting {
  double share, temperature;
};

// Largest error of loss or gradient of the head beside autograd in double.
double head_error(const Setting& ours, const Setting& wanted, at::ScalarType dtype) {
  constexpr int64_t T = 45, D = 24, V = 61, H = 18;  // the teacher may be of another width
  const auto in = [&](std::vector<int64_t> shape, uint64_t seed) {
    return random_tensor(std::move(shape), seed).to(dtype);
  };
  const at::Tensor hidden = in({T, D}, 1), weight = in({V, D}, 2), bias = in({V}, 3),
                   taught = in({T, H}, 4), teacher_weight = in({V, H}, 5);
  at::Tensor target = at::arange(T, at::kLong) * 7 % V;
  target[3] = target[44] = -1;
  const at::Tensor x = hidden.clone().requires_grad_(true);
  Head head{weight, bias, at::zeros({V, D}), at::zeros({V}), 2.5};
  Teaching teaching{taught, {teacher_weight, {}, {}, {}, 1.5}, ours.share, ours.temperature, {}};
  at::Tensor token_loss;
  const at::Tensor loss = linear_cross_entropy(x, head, target, 0.7, token_loss, &teaching);
  (2 * loss).backward();

  const auto leaf = [](const at::Tensor& t) { return t.to(at::kDouble).requires_grad_(true); };
  const at::Tensor px = leaf(hidden), pw = leaf(weight), pb = leaf(bias);
  const at::Tensor logits = (at::matmul(px, pw.t()) + pb) / 2.5;
  const at::Tensor teacher = at::matmul(taught.to(at::kDouble), teacher_weight.to(at::kDouble).t());
  const at::Tensor plain =
      0.7 * plain_loss(logits, teacher / 1.5, target, wanted.share, wanted.temperature);
  (2 * plain).backward();
  CHECK(token_loss[3].item<float>() == 0);
  CHECK(teaching.divergence[44].item<float>() == 0);
  double worst = relative_error(loss.detach(), plain.detach());
  worst = std::max(worst, relative_error(x.grad(), px.grad()));
  worst = std::max(worst, relative_error(head.weight_grad, pw.grad()));
  return std::max(worst, relative_error(head.bias_grad, pb.grad()));
}

std::vector<Json> steps(const fs::path& out) {
  std::vector<Json> steps;
  for (const std::string& line : journal_lines(out)) {
    Json json = Json::parse(line);
    if (json.contains("loss")) steps.push_back(std::move(json));
  }
  return steps;
}

const std::vector<std::string> kNone;

}  // namespace

TEST_CASE("the head's gradients are autograd's of the plain formula", "[distill]") {
  for (const Setting s : {Setting{0.3, 1}, Setting{0.5, 2}, Setting{1, 0.5}, Setting{0, 3}}) {
    CAPTURE(s.share, s.temperature);
    CHECK(head_error(s, s, at::kFloat) <= tolerance::kBlockGradient);
    CHECK(head_error(s, s, at::kBFloat16) <= tolerance::kBlockBFloat16);
  }
  CHECK(head_error({0.5, 2}, {0.4, 2}, at::kFloat) > tolerance::kVisibleBlock);
  CHECK(head_error({0.5, 2}, {0.5, 1.9}, at::kFloat) > tolerance::kVisibleBlock);
}

TEST_CASE("every gradient of the model is autograd's through its logits", "[distill]") {
  const auto student = open_model(kStudent, {.train = true});
  const auto teacher = open_model(kTeacher);
  PicoRun run;
  const TrainData data(run.options, student->spec().vocabulary);
  const Batch batch = data.batch(0);
  const int64_t length = batch.rows_BT1.size(1) - 1;
  const at::Tensor tokens = batch.rows_BT1.narrow(1, 0, length);
  at::Tensor mask = at::ones({tokens.size(0), length}, at::kBool);
  mask[1].narrow(0, 3, 4).fill_(false);
  at::Tensor target = batch.rows_BT1.narrow(1, 1, length).reshape({-1});
  target = target.masked_fill(mask.reshape({-1}).logical_not(), -1);
  const double scale = 1.0 / mask.sum().item<double>();

  const auto ours = [&](double share, double temperature) {
    Pass pass;
    pass.distill = {teacher.get(), share, temperature};
    student->zero_grad();
    const at::Tensor loss = student->loss(batch.rows_BT1, mask, scale, pass);
    loss.backward();
    student->finish_backward();
    auto all = gradients(*student);
    all["loss"] = loss.detach();
    return all;
  };
  const auto seen = ours(0.6, 2);
  const auto other = ours(0.6, 1);

  student->zero_grad();
  Pass pass;
  const at::Tensor logits = student->logits(tokens, pass).view({target.numel(), -1});
  const at::Tensor theirs = logits_of(*teacher, tokens).view({target.numel(), -1});
  const at::Tensor plain =
      scale * plain_loss(logits.to(at::kDouble), theirs.to(at::kDouble), target, 0.6, 2);
  plain.backward();
  student->finish_backward();
  auto wanted = gradients(*student);
  wanted["loss"] = plain.detach();
  double differs = 0;
  for (const auto& [name, gradient] : wanted) {
    CAPTURE(name);
    if (gradient.numel() == 0) continue;
    CHECK(relative_error(seen.at(name), gradient.to(at::kDouble)) <= tolerance::kGoldenGradient);
    differs = std::max(differs, relative_error(other.at(name), gradient.to(at::kDouble)));
  }
  CHECK(differs > 100 * tolerance::kGoldenGradient);
  CHECK(wanted.size() > 100);
}

TEST_CASE("while closed a model does not diverge from itself or its source; opened it does",
          "[distill]") {
  PicoRun run;
  run.options.distill = 0.5;
  run.options.distill_temperature = 2;
  run.options.dtype = GENERATE("float32", "bfloat16");
  const bool named = GENERATE(false, true);
  if (named) run.options.distill_from = kTeacher;
  train_model(run.model, run.out("run"), run.options);
  // The warm-up moves the trajectory alone, and its gain is 0 before the first update.
  const std::vector<Json> all = steps(run.out("run"));
  CHECK(all[0]["divergence"] == 0.0);
  CHECK(all[10]["divergence"] > 1e-4);
  for (const Json& step : all) CHECK(step["divergence"] >= 0.0);
}

TEST_CASE("a control with share 1 stays where its teacher is", "[distill]") {
  PicoRun run;
  run.options.control = true;
  run.options.distill = 1;
  run.options.alpha = 0;
  run.options.weight_decay = 0;
  run.options.steps = 5;
  train_model(kTeacher, run.out("run"), run.options);
  for (const Json& step : steps(run.out("run"))) {
    CHECK(step["divergence"] == 0.0);
    CHECK(step["grad_norm"] == 0.0);
    CHECK(step["loss"] > 1.0);  // the cross-entropy, as ever
  }
}

TEST_CASE("distillation holds a model nearer to its teacher", "[distill]") {
  PicoRun run;
  run.options.steps = 40;
  const auto last = [&](const char* name, double share) {
    run.options.distill = share;
    train_model(run.model, run.out(name), run.options);
    return steps(run.out(name)).back()["divergence"].get<double>();
  };
  const double strong = last("strong", 0.9), weak = last("weak", 1e-9);
  CHECK(strong < 0.7 * weak);
}

TEST_CASE("masked targets have no part in the divergence", "[distill]") {
  const auto student = open_model(kStudent), teacher = open_model(kTeacher);
  PicoRun run;
  at::Tensor rows = TrainData(run.options, 61).batch(0).rows_BT1;
  at::Tensor mask = at::ones({rows.size(0), rows.size(1) - 1}, at::kBool);
  mask[2].fill_(false);
  const at::NoGradGuard no_grad;
  const auto sum = [&](const at::Tensor& rows_BT1, const at::Tensor& counted) {
    Pass pass;
    pass.distill = {teacher.get(), 0.5, 1};
    student->loss(rows_BT1, counted, 1.0, pass);
    return pass.divergence_sum.item<double>();
  };
  const double some = sum(rows, mask), all = sum(rows, {});
  const double row = sum(rows.narrow(0, 2, 1), {});
  CHECK(row > 0);
  CHECK(all - some == Approx(row).epsilon(1e-4));
  rows = rows.clone();
  rows[2].narrow(0, 1, 5).fill_(7);
  CHECK(sum(rows, mask) == Approx(some).epsilon(1e-6));
}

TEST_CASE("a distilled run resumes bit for bit, and from no other teacher", "[distill][resume]") {
  PicoRun run;
  run.options.distill = 0.5;
  run.options.distill_from = kTeacher;
  run.options.dtype = GENERATE("float32", "bfloat16");
  train_model(run.model, run.out("whole"), run.options);
  run.options.stop_after = 11;
  train_model(run.model, run.out("half"), run.options);
  run.options.stop_after = 0;
  run.options.resume = true;
  TrainOptions other = run.options;
  other.distill_from.clear();
  other.distill_temperature = 3;
  CHECK_THAT(error_of([&] { train_model(run.model, run.out("half"), other); }),
             Catch::Contains("distill_from is itself, the run began with") &&
                 Catch::Contains("distill_temperature is 3, the run began with 1"));
  train_model(run.model, run.out("half"), run.options);
  CHECK(differing_files(run.out("whole") / "step-000020", run.out("half") / "step-000020") ==
        kNone);
  CHECK(journal_lines(run.out("whole")) == journal_lines(run.out("half")));
}

TEST_CASE("micro-batches do not change what a teacher says", "[distill]") {
  const auto gradients_of = [](int64_t micro_batch) {
    PicoRun run;
    const auto student = open_model(kStudent, {.train = true});
    const auto teacher = open_model(kTeacher);
    const TrainData data(run.options, 61);
    StepSettings settings{.micro_batch = micro_batch,
                          .f = uniform_shares(student->visibility()),
                          .target = balance_target(student->pool(), student->visibility(), 1, 0.1)};
    settings.distill = {teacher.get(), 0.5, 2};
    const StepSums sums = run_step(*student, data.batch(0), settings);
    auto all = gradients(*student);
    all["divergence"] = at::tensor({sums.divergence}, at::kDouble);
    return all;
  };
  const auto whole = gradients_of(4), parts = gradients_of(1);
  for (const auto& [name, gradient] : whole) {
    CAPTURE(name);
    if (gradient.numel() > 0)
      CHECK(relative_error(parts.at(name), gradient.to(at::kDouble)) <= tolerance::kMicroBatch);
  }
}

TEST_CASE("what student and teacher hold alike and frozen is in memory once", "[distill]") {
  PicoRun run;
  run.options.distill = 0.5;
  run.options.distill_from = kTeacher;
  run.options.freeze = {"*.experts.*", "lm_head.weight"};
  const auto shared = [&] {
    const Checkpoint checkpoint = open_checkpoint(run.model);
    Trainer trainer(checkpoint, checkpoint, run.options);
    std::vector<std::string> names;
    for (const Parameter& theirs : trainer.teacher()->parameters()) {
      CHECK_FALSE(theirs.value.requires_grad());
      for (const Parameter& ours : trainer.model().parameters())
        if (ours.value.data_ptr() == theirs.value.data_ptr() && ours.value.numel() > 0)
          names.push_back(ours.name);
    }
    return names;
  };
  CHECK(shared().size() == 3);  // gate and up, down, head
  // What was changed before the run, though frozen, is the model's alone.
  change_tensors(run.model / "model-00001-of-00009.safetensors",
                 [](const auto& name, auto& values) {
                   if (name == "lm_head.weight") values[0] += 1;
                 });
  CHECK(shared().size() == 2);
  run.options.freeze.clear();
  CHECK(shared().empty());
}

TEST_CASE("a teacher of another vocabulary is refused", "[distill]") {
  PicoRun run;
  run.options.distill = 0.5;
  run.options.distill_from = "examples/tiny-mixtral";
  run.options.distill_temperature = 0;
  CHECK_THAT(error_of([&] { train_model(run.model, run.out("run"), run.options); }),
             Catch::Contains("distill_temperature is 0, wanted above 0"));
  run.options.distill_temperature = 1;
  CHECK_THAT(error_of([&] { train_model(run.model, run.out("run"), run.options); }),
             Catch::Contains("distill_from examples/tiny-mixtral has a vocabulary of") &&
                 Catch::Contains("the model 61; name one with its tokenizer"));
}

TEST_CASE("from scratch a teacher must be named", "[distill]") {
  PicoRun run;
  run.options.from_scratch = true;
  run.options.distill = 0.5;
  CHECK_THAT(error_of([&] { train_model(run.model, run.out("run"), run.options); }),
             Catch::Contains("distill is 0.5 from scratch") && Catch::Contains("distill_from"));
}

}  // namespace moue
