// Frozen tensors: no gradient, no moments, the source's bytes; and what moves beside them.
#include "support/torch_test.h"

#include <filesystem>
#include <map>

#include "moue/pool.h"
#include "moue/safetensors.h"
#include "support/tolerances.h"
#include "support/torch_pico.h"
#include "train/checkpoint.h"
#include "train/loop.h"
#include "train/trainer.h"

namespace moue {
namespace {

using namespace test;

// Gradients of one step of the recorded half-open model, by name.
std::map<std::string, at::Tensor> gradients(const std::function<bool(const std::string&)>& frozen) {
  PicoRun run;
  const Checkpoint checkpoint = open_checkpoint("tests/golden/moue/half_staggered/model");
  ModelOptions how{.train = true};
  how.frozen = frozen;
  const auto model = Model::open(checkpoint, how);
  const TrainData data(run.options, model->spec().vocabulary);
  const Visibility& visibility = model->visibility();
  run_step(*model, data.batch(0),
           {.micro_batch = 2,
            .alpha = 0.1,
            .f = uniform_shares(visibility),
            .target = balance_target(model->pool(), visibility, 1.0, 0.1)});
  std::map<std::string, at::Tensor> gradients;
  for (const Parameter& parameter : model->parameters())
    if (parameter.grad.defined()) gradients[parameter.name] = parameter.grad.clone();
  return gradients;
}

bool is_expert(const std::string& name) { return matches("*.experts.*", name); }

int64_t differing(const Checkpoint& a, const Checkpoint& b, std::string_view pattern) {
  int64_t count = 0;
  for (const TensorInfo& tensor : b.tensors()) {
    if (matches(pattern, tensor.name)) count += a.read(a.at(tensor.name)) != b.read(tensor);
  }
  return count;
}

}  // namespace

TEST_CASE("what is not frozen gets the gradients it had", "[freeze]") {
  const auto all = gradients({});
  const std::string which = GENERATE("experts", "all but experts", "embedding and head", "norms");
  CAPTURE(which);
  const auto frozen = [&](const std::string& name) {
    if (which == "experts") return is_expert(name);
    if (which == "all but experts") return !is_expert(name);
    if (which == "norms") return matches("*norm*", name);
    return matches("*embed*", name) || matches("lm_head*", name);
  };
  const auto some = gradients(frozen);
  CHECK(some.size() < all.size());
  CHECK_FALSE(some.empty());
  for (const auto& [name, gradient] : some) {
    CAPTURE(name);
    CHECK(gradient.equal(all.at(name)));
  }
}

TEST_CASE("single experts of a stack freeze, and the others keep their gradients", "[freeze]") {
  const auto all = gradients({});
  const auto some = gradients([](const std::string& name) {
    return matches("*layers.1.*.experts.*", name) || matches("*.experts.2.*", name);
  });
  int64_t compared = 0;
  for (const auto& [name, gradient] : some) {
    const at::Tensor& whole = all.at(name);
    if (gradient.sizes() == whole.sizes()) continue;
    CAPTURE(name);
    std::vector<int64_t> kept;  // six layers of five experts
    for (int64_t p = 0; p < 30; ++p)
      if (p / 5 != 1 && p % 5 != 2) kept.push_back(p);
    CHECK(gradient.equal(whole.index_select(0, at::tensor(kept))));
    CHECK_FALSE(gradient.equal(whole.narrow(0, 0, 20)));
    ++compared;
  }
  CHECK(compared == 2);  // gate and up, down
}

TEST_CASE("a part of what is one tensor in memory cannot be frozen", "[freeze]") {
  const auto frozen = [](const std::string& pattern) {
    return [pattern](const std::string& name) { return matches(pattern, name); };
  };
  CHECK_THAT(error_of([&] { gradients(frozen("*layers.0.*q_proj*")); }),
             Catch::Contains("q_proj.weight is frozen and") &&
                 Catch::Contains("freeze all of it or none"));
  CHECK_THAT(error_of([&] { gradients(frozen("*experts.3.w1*")); }),
             Catch::Contains("w1.weight is frozen"));
}

TEST_CASE("a run keeps frozen bytes, saves no moments of them, and resumes", "[freeze]") {
  PicoRun run;
  run.options.dtype = GENERATE("float32", "bfloat16");
  run.options.freeze = {"*.experts.*", "lm_head.weight"};
  run.options.groups = {{"moue.*", 2.0, -1, false, 0},
                        {"*input_layernorm*", 1.0, -1, true, 0},
                        {"*self_attn*", 1.0, -1, false, 12}};
  train_model(run.model, run.out("whole"), run.options);
  const Checkpoint source = open_checkpoint(run.model);
  const Checkpoint step = open_checkpoint(run.out("whole") / "step-000020");
  for (const char* pattern : {"*.experts.*", "lm_head.weight", "*input_layernorm*"})
    CHECK(differing(step, source, pattern) == 0);
  for (const char* pattern : {"*self_attn*", "*embed_tokens*", "moue.*router.weight"})
    CHECK(differing(step, source, pattern) > 0);
  const SafetensorsFile moments(run.out("whole") /
                                "step-000020/training/first_moment-00001-of-00001.safetensors");
  CHECK(moments.find("lm_head.weight") == nullptr);
  CHECK(moments.find("model.embed_tokens.weight") != nullptr);

  run.options.stop_after = 10;
  train_model(run.model, run.out("half"), run.options);
  CHECK(differing(open_checkpoint(run.out("half") / "step-000010"), source, "*self_attn*") == 0);
  run.options.stop_after = 0;
  run.options.resume = true;
  const auto good = run.options;
  run.options.groups[2].start_step = 13;
  CHECK_THAT(error_of([&] { train_model(run.model, run.out("half"), run.options); }),
             Catch::Contains("groups is moue.*: lr * 2") && Catch::Contains("from step 13"));
  run.options = good;
  run.options.freeze.pop_back();
  CHECK_THAT(error_of([&] { train_model(run.model, run.out("half"), run.options); }),
             Catch::Contains("the run began with"));
  train_model(run.model, run.out("half"), good);
  CHECK(differing_files(run.out("whole") / "step-000020", run.out("half") / "step-000020") ==
        std::vector<std::string>());
}

TEST_CASE("patterns that match nothing are refused by name", "[freeze]") {
  PicoRun run;
  run.options.freeze = {"*.expert.*", "lm_head*"};
  run.options.groups = {{"moue.*", 1, -1, false, 0}, {"nothing", 1, -1, false, 0}};
  CHECK_THAT(error_of([&] { train_model(run.model, run.out("run"), run.options); }),
             Catch::Contains("no tensor matches '*.expert.*', 'nothing'; tensors are named like"));
  CHECK_FALSE(fs::exists(run.out("run")));
}

TEST_CASE("the warm-up makes gradients of the trajectory alone", "[freeze]") {
  PicoRun run;
  const Checkpoint checkpoint = open_checkpoint(run.model);
  Trainer trainer(checkpoint, checkpoint, run.options);
  const auto with_gradient = [&] {
    std::vector<std::string> names;
    for (const Parameter& parameter : trainer.model().parameters())
      if (parameter.grad.defined()) names.push_back(parameter.name);
    return names;
  };
  CHECK(trainer.step().stage == Stage::Warmup);
  for (const std::string& name : with_gradient()) CHECK_THAT(name, Catch::Contains("trajectory"));
  while (trainer.step().stage != Stage::Open) {
  }
  CHECK(with_gradient().size() == trainer.model().parameters().size());
}

}  // namespace moue
