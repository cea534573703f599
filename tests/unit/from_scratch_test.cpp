// Training from scratch: everything moves at once, the pool is converted where it begins to open.
#include "support/torch_test.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "moue/checkpoint.h"
#include "moue/convert.h"
#include "moue/initial.h"
#include "moue/model.h"
#include "moue/plan.h"
#include "support/layouts.h"
#include "support/program.h"
#include "support/torch_pico.h"
#include "train/calibrate.h"
#include "train/checkpoint.h"
#include "train/loop.h"

namespace moue {
namespace {

using namespace test;

// A MoUE of initial weights and a run of 20 steps on it: 4 closed, 10 opening.
struct Scratched : PicoRun {
  fs::path initial = scratch / "init";

  explicit Scratched(const std::string& family = "mixtral", int64_t new_experts = 0) {
    write_initial(fs::path("tests/golden/families") / family, initial, {.seed = 5});
    model = scratch / "made";
    to_moue(initial, model, {}, new_experts);
    options.from_scratch = true;
    options.open.schedule = "psr";
  }
};

std::vector<double> read(const fs::path& directory, const std::string& name) {
  const Checkpoint checkpoint = open_checkpoint(directory);
  return checkpoint.values(checkpoint.at(name));
}

double loss_at(const fs::path& out, const std::string& which) {
  double loss = 0;
  for (const std::string& line : journal_lines(out)) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains(which)) loss = json[which];
  }
  return loss;
}

}  // namespace

TEST_CASE("from scratch all weights move while the pool is closed", "[train]") {
  Scratched run;
  run.options.stop_after = 3;
  train_model(run.model, run.out("run"), run.options);
  const Checkpoint step = open_checkpoint(run.out("run") / "step-000003");
  const Checkpoint start = open_checkpoint(run.model);
  for (const TensorInfo& tensor : start.tensors()) {
    CAPTURE(tensor.name);
    const bool same = step.read(step.at(tensor.name)) == start.read(tensor);
    const bool closed =
        is_pool_tensor(tensor.name) && tensor.name.find(".router.") != std::string::npos;
    if (tensor.bytes == 0 || tensor.name.find("trajectory") != std::string::npos) continue;
    CHECK(same == (closed || tensor.name == names::kPoolBias));
  }
  CHECK(read_pool(step.config()).calibrated == false);
}

TEST_CASE("foreign slots take their start from home where they open", "[train]") {
  const int64_t new_experts = GENERATE(0, 7);
  Scratched run("mixtral", new_experts);
  std::unique_ptr<Model> model = Model::open(open_checkpoint(run.model), {.train = true});
  const Pool& pool = model->pool();
  for (Parameter& parameter : model->parameters())
    parameter.master.add_(at::randn_like(parameter.master));
  start_foreign(*model);
  for (const Parameter& parameter : model->parameters()) {
    if (parameter.kind == ParameterKind::Expert) {
      for (int64_t p = pool.num_source(); p < pool.num_physical(); ++p) {
        const Home home = pool.home[p];
        CHECK(at::equal(parameter.value[p],
                        parameter.value[home.layer * pool.experts_per_layer + home.expert]));
      }
    }
    if (parameter.kind != ParameterKind::ForeignRow) continue;
    const std::vector<int32_t>& slots = pool.slots[parameter.moe_layer];
    for (int64_t i = 0; i < parameter.value.size(0); ++i)
      CHECK(
          at::equal(parameter.value[i], model->home_router_row(slots[pool.experts_per_layer + i])));
  }
}

TEST_CASE("the pool is calibrated at its opening, and a resumed run does so too", "[train]") {
  Scratched run;
  run.options.calibrate.eps = 0.3;
  train_model(run.model, run.out("whole"), run.options);
  const std::string bias = names::router_bias(0);
  const int64_t stop = GENERATE(3, 4, 5);  // the opening begins with the fifth step
  run.options.stop_after = stop;
  train_model(run.model, run.out("half"), run.options);
  const std::vector<double> beta = read(run.out("half") / step_name(stop), bias);
  CHECK(std::ranges::all_of(beta, [](double b) { return b == 0; }) == (stop < 5));
  run.options.stop_after = 0;
  run.options.resume = true;
  train_model(run.model, run.out("half"), run.options);
  CHECK(differing_files(run.out("whole") / "step-000020", run.out("half") / "step-000020").empty());
  // Without the flag the same directory trains its trajectory first, and is another run.
  run.options.from_scratch = false;
  CHECK_THAT(error_of([&] { train_model(run.model, run.out("half"), run.options); }),
             Catch::Contains("from_scratch is false, the run began with true"));
}

TEST_CASE("a matched control starts from the same weights", "[train]") {
  Scratched run;
  train_model(run.model, run.out("moue"), run.options);
  run.options.control = true;
  train_model(run.initial, run.out("control"), run.options);
  const auto first = [&](const char* name) {
    return nlohmann::json::parse(journal_lines(run.out(name)).front())["held_out"].get<double>();
  };
  CHECK(first("moue") == first("control"));
  for (const char* name : {"moue", "control"})
    CHECK(loss_at(run.out(name), "held_out") < first(name) - 0.1);
}

TEST_CASE("every family trains from scratch by the program", "[train][cli]") {
  for (const std::string& folder : family_folders()) {
    const ScratchDir scratch;
    write_tokens(scratch / "text.u16", 600, 1);
    const std::string words = "train --init " + folder + " --tokens " +
                              (scratch / "text.u16").string() +
                              " --steps 6 --batch 4 --length 12 --threads 1 --quiet"
                              " --calibrate.tokens 100 --out " +
                              (scratch / "run").string();
    INFO(words);
    const test::Outcome moue = run(words);
    INFO(moue.err);
    CHECK(moue.code == 0);
    CHECK(run("train --init " + folder + " --tokens " + (scratch / "text.u16").string() +
              " --steps 2 --batch 4 --length 12 --threads 1 --quiet --control --out " +
              (scratch / "control").string())
              .code == 0);
    for (const char* name : {"init", "model", "run/latest", "control/latest"})
      CHECK(fs::exists(scratch / name));
    CHECK(base_digests_of(scratch / "model") == digests_of(scratch / "init"));
  }
}

TEST_CASE("what a run from scratch makes is made once", "[train][cli]") {
  const ScratchDir scratch;
  write_tokens(scratch / "text.u16", 600, 1);
  scratch.write("recipe.toml", "out = \"" + scratch.path().string() +
                                   "\"\n[plan]\ntopology = \"aligned\"\nstate_dim = 8\n[train]\n"
                                   "init = \"tests/golden/families/qwen3_moe\"\nsteps = 5\n"
                                   "batch = 2\nlength = 12\nthreads = 1\nseed = 3\ntokens = \"" +
                                   (scratch / "text.u16").string() + "\"\n");
  const std::string train = "train --recipe " + (scratch / "recipe.toml").string() + " ";
  REQUIRE(run(train + "--stop_after 2").code == 0);
  const auto written = fs::last_write_time(scratch / "init" / "model.safetensors");
  CHECK(run(train + "--resume").code == 0);
  CHECK(fs::last_write_time(scratch / "init" / "model.safetensors") == written);
  const std::string kept = file_text(scratch / "train" / "recipe.toml");
  CHECK(has(kept, "topology = \"aligned\""));
  CHECK(has(kept, "from = 0.2\nuntil = 0.6\n"));

  const test::Outcome other_seed = run(train + "--seed 4 --out " + (scratch / "other").string());
  CHECK(other_seed.code == 2);
  CHECK(has(other_seed.err, "init stands and was drawn with"));
  std::string text = file_text(scratch / "recipe.toml");
  text.replace(text.find("aligned"), 7, "one_pool");
  scratch.write("recipe.toml", text);
  const test::Outcome other_plan = run(train + "--out " + (scratch / "other").string());
  CHECK(other_plan.code == 2);
  CHECK(has(other_plan.err, "model stands and was made with another plan"));
  const test::Outcome both = run("train examples/tiny-mixtral --init a --tokens t --out b");
  CHECK(both.code == 2);
  CHECK(has(both.err, "has both a model, examples/tiny-mixtral, and init"));
}

}  // namespace moue
