// The run: what it leaves, what it refuses, what it does with what is not finite.
#include "support/torch_test.h"

#include <csignal>
#include <limits>
#include <nlohmann/json.hpp>

#include "moue/error.h"
#include "moue/log.h"
#include "moue/pool.h"
#include "support/tolerances.h"
#include "support/torch_pico.h"
#include "train/checkpoint.h"
#include "train/loop.h"
#include "train/trainer.h"

namespace moue {
namespace {

using namespace test;
using Json = nlohmann::ordered_json;

double fact(const Report& report, const std::string& key) {
  for (const Fact& fact : report.facts) {
    if (fact.key != key) continue;
    if (const auto* whole = std::get_if<int64_t>(&fact.value)) return static_cast<double>(*whole);
    return std::get<double>(fact.value);
  }
  throw std::runtime_error("the report has no " + key);
}

std::vector<Json> journal(const fs::path& out) {
  std::vector<Json> lines;
  for (const std::string& line : journal_lines(out)) lines.push_back(Json::parse(line));
  return lines;
}

// Names in a folder that a run under a wrong option must not change.
std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

// Gradients of one step of the recorded half-open model, with a strong balance loss.
std::vector<at::Tensor> gradients(int64_t micro_batch, bool running) {
  PicoRun run;
  const Checkpoint checkpoint = open_checkpoint("tests/golden/moue/half_staggered/model");
  const auto model = Model::open(checkpoint, {.train = true});
  const TrainData data(run.options, model->spec().vocabulary);
  const Visibility& visibility = model->visibility();
  const StepSettings settings{.micro_batch = micro_batch,
                              .alpha = 1.0,
                              .running = running,
                              .f = uniform_shares(visibility),
                              .target = balance_target(model->pool(), visibility, 1.0, 0.1)};
  run_step(*model, data.batch(0), settings);
  std::vector<at::Tensor> gradients;
  for (const Parameter& parameter : model->parameters())
    gradients.push_back(parameter.grad.clone());
  return gradients;
}

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

TEST_CASE("a run passes through its stages and learns", "[train]") {
  PicoRun run;
  run.options.recipe = "out = \"run\"\n";
  const Report report = train_model(run.model, run.out("run"), run.options);
  CHECK(fact(report, "steps") == 20);
  CHECK(fact(report, "held_out_last") < fact(report, "held_out_first") - 0.2);
  CHECK(fact(report, "foreign_share") > 0);
  CHECK(file_text(run.out("run") / "recipe.toml") == run.options.recipe);
  CHECK(names_in(run.out("run")) ==
        std::vector<std::string>{"latest", "recipe.toml", "report.html", "report.json", "run.json",
                                 "step-000020", "tensorboard", "train.jsonl"});

  std::string stages;
  for (const Json& line : journal(run.out("run"))) {
    const std::string stage = line["stage"];
    if (!stages.ends_with(stage)) stages += " " + stage;
    if (line.contains("loss")) CHECK(line["max_vio"].size() == 6);
  }
  CHECK(stages == " calibrate warmup open full");
  const Json first = journal(run.out("run"))[2], last = journal(run.out("run")).rbegin()[1];
  CHECK(first["foreign_share"] == 0.0);
  CHECK(last["foreign_share"] > 0.0);
}

TEST_CASE("the last step is a trained model, open and calibrated", "[train]") {
  PicoRun run;
  train_model(run.model, run.out("run"), run.options);
  const Checkpoint trained = open_checkpoint(run.out("run") / "step-000020");
  const Checkpoint source = open_checkpoint(run.model);
  const Pool pool = read_pool(trained.config());
  CHECK(pool.state == PoolState::Trained);
  CHECK(pool.calibrated);
  CHECK_FALSE(read_pool(source.config()).calibrated);
  REQUIRE(trained.tensors().size() == source.tensors().size());
  for (const TensorInfo& tensor : source.tensors()) {
    CAPTURE(tensor.name);
    CHECK(trained.at(tensor.name).dtype == tensor.dtype);
    CHECK(trained.at(tensor.name).shape == tensor.shape);
    const bool same = trained.read(trained.at(tensor.name)) == source.read(tensor);
    // Everything moved but the first gain: the trajectory state is 0 there.
    CHECK(same == (tensor.bytes == 0 || tensor.name == names::trajectory_gain(0)));
  }
  const auto model = Model::open(trained, {});
  CHECK(model->visibility() == open_visibility(pool));
}

TEST_CASE("saving on the way changes nothing", "[train]") {
  PicoRun run;
  train_model(run.model, run.out("plain"), run.options);
  run.options.save_every = 8;
  train_model(run.model, run.out("often"), run.options);
  CHECK(names_in(run.out("often")) ==
        std::vector<std::string>{"latest", "report.html", "report.json", "run.json", "step-000008",
                                 "step-000016", "step-000020", "tensorboard", "train.jsonl"});
  CHECK(differing_files(run.out("plain") / "step-000020", run.out("often") / "step-000020") ==
        std::vector<std::string>());
  CHECK(journal_lines(run.out("plain")) == journal_lines(run.out("often")));
  // A finished run has nothing left to do.
  run.options.resume = true;
  const Report report = train_model(run.model, run.out("often"), run.options);
  CHECK(fact(report, "steps") == 20);
  CHECK(journal_lines(run.out("plain")) == journal_lines(run.out("often")));
}

TEST_CASE("the control trains the source under its own names", "[train]") {
  PicoRun run;
  run.options.control = true;
  const fs::path source = "tests/golden/moue/half_staggered/source";
  const Report report = train_model(source, run.out("run"), run.options);
  CHECK(fact(report, "held_out_last") < fact(report, "held_out_first") - 0.2);
  CHECK(fact(report, "foreign_share") == 0);
  const Checkpoint trained = open_checkpoint(run.out("run") / "step-000020");
  CHECK_FALSE(is_moue(trained.config()));
  CHECK(trained.tensors().size() == open_checkpoint(source).tensors().size());
}

TEST_CASE("one and four micro-batches give the same gradients", "[train]") {
  const std::vector<at::Tensor> whole = gradients(4, false);
  CHECK(difference(whole, gradients(1, false)) <= tolerance::kMicroBatchGolden);
  // Running counts differ with the split, and are seen.
  CHECK(difference(gradients(4, true), gradients(1, true)) > 100 * tolerance::kMicroBatch);
  CHECK(difference(whole, gradients(4, true)) > 100 * tolerance::kMicroBatch);
}

TEST_CASE("a row of a step holds the tokens that the order names", "[train]") {
  PicoRun run;
  const TokenFile tokens(run.options.tokens);
  const auto rows_differ = [&](const TrainOptions& options, auto position) {
    const TrainData data(options, 61);
    int64_t differing = 0;
    for (int64_t step = 0; step < 3; ++step) {
      const Batch batch = data.batch(step);
      for (int64_t row = 0; row < options.batch; ++row) {
        std::vector<int64_t> expected(options.length + 1);
        tokens.read<int64_t>(position(step, row), expected);
        differing += !batch.rows_BT1[row].equal(at::tensor(expected));
      }
    }
    return differing;
  };
  const auto in_sequence = [&](int64_t step, int64_t row) {
    return static_cast<uint64_t>((step * 4 + row) * 12);
  };
  const DataOrder order{Order::Shuffled, 5, tokens.num_windows(12), 12, 4};
  const auto shuffled = [&](int64_t step, int64_t row) { return order.position(step, row); };
  TrainOptions options = run.options;
  options.order = "sequential";
  CHECK(rows_differ(options, in_sequence) == 0);
  options.order = "shuffled";
  options.seed = 5;
  CHECK(rows_differ(options, shuffled) == 0);
  CHECK(rows_differ(options, in_sequence) > 8);
  options.seed = 6;
  CHECK(rows_differ(options, shuffled) > 8);
}

TEST_CASE("a mask counts the targets of its tokens", "[train]") {
  PicoRun run;
  std::string mask(4000, '\1');
  mask[13] = '\0';  // the first target of the second row
  write_text(run.scratch / "train.mask", mask);
  run.options.order = "sequential";
  const Batch batch = TrainData(run.options, 61).batch(0);
  CHECK(batch.num_targets == 4 * 12 - 1);
  CHECK_FALSE(batch.mask_BT[1][0].item<bool>());
  CHECK(batch.mask_BT[0][11].item<bool>());
}

TEST_CASE("a batch given in tokens is the batch of so many rows", "[train]") {
  PicoRun run;
  run.options.steps = 3;
  train_model(run.model, run.out("rows"), run.options);
  run.options.batch_tokens = run.options.batch * run.options.length;
  run.options.batch = 1;
  train_model(run.model, run.out("tokens"), run.options);
  CHECK(journal_lines(run.out("rows")) == journal_lines(run.out("tokens")));
  run.options.batch_tokens += run.options.length;
  train_model(run.model, run.out("more"), run.options);
  CHECK(journal_lines(run.out("rows")) != journal_lines(run.out("more")));
  run.options.batch_tokens += 5;
  CHECK_THAT(error_of([&] { train_model(run.model, run.out("none"), run.options); }),
             Catch::Contains("batch_tokens is 65, wanted a multiple of length 12, such as 72"));
}

TEST_CASE("a step that is not finite is skipped and leaves no trace", "[train]") {
  PicoRun run;
  const Checkpoint checkpoint = open_checkpoint(run.model);
  run.options.open = {"distance", 0, 0};
  Trainer trainer(checkpoint, checkpoint, run.options);
  trainer.step();
  Parameter& poisoned = trainer.model().parameters()[0];
  const at::Tensor good = poisoned.master.clone();
  poisoned.master.fill_(std::numeric_limits<float>::quiet_NaN());
  trainer.model().refresh_values();
  const at::Tensor other = trainer.model().parameters()[3].master.clone();
  const PerSlot previous = trainer.state().previous;
  CHECK(trainer.step().skipped);
  CHECK(trainer.state().skips.total == 1);
  CHECK(trainer.state().losses.values.size() == 1);
  CHECK(trainer.state().previous == previous);
  CHECK(trainer.model().parameters()[3].master.equal(other));
  poisoned.master.copy_(good);
  trainer.model().refresh_values();
  const StepRecord after = trainer.step();
  CHECK_FALSE(after.skipped);
  CHECK(std::isfinite(after.mean_loss));
  CHECK_FALSE(trainer.model().parameters()[3].master.equal(other));
  CHECK(trainer.state().skips.in_a_row == 0);
}

TEST_CASE("twenty steps in a row that are not finite end the run, saved", "[train]") {
  PicoRun run;
  change_tensors(run.model / "model-00001-of-00009.safetensors", [](const auto&, auto& values) {
    values[0] = std::numeric_limits<float>::quiet_NaN();
  });
  run.options.steps = 30;
  run.options.calibrate.tokens = 0;
  run.options.open.from = 0;
  const std::string message =
      error_of([&] { train_model(run.model, run.out("run"), run.options); });
  CHECK_THAT(message,
             Catch::Contains("step 20: 20 steps in a row were skipped, 0 of all 20 as spikes"));
  CHECK(fs::exists(run.out("run") / "step-000020" / "config.json"));
  CHECK(file_text(run.out("run") / "latest") == "step-000020\n");
}

TEST_CASE("SIGTERM ends the step, saves and says how to go on", "[train]") {
  PicoRun run;
  const LogSink before = set_log_sink({{}, [](const Progress& progress) {
                                         if (progress.done == 3) std::raise(SIGTERM);
                                       }});
  std::string message;
  try {
    train_model(run.model, run.out("run"), run.options);
  } catch (const Interrupted& interrupted) {
    message = interrupted.what();
  }
  set_log_sink(before);
  CHECK_THAT(message, Catch::Contains("stopped after step 3, saved in"));
  CHECK_THAT(message, Catch::Contains("--resume"));
  run.options.resume = true;
  CHECK(fact(train_model(run.model, run.out("run"), run.options), "steps") == 20);
}

TEST_CASE("a time limit ends the step, saves and says how to go on", "[train]") {
  PicoRun run;
  train_model(run.model, run.out("whole"), run.options);
  run.options.time_limit = 1e-9;
  std::string message;
  int64_t parts = 0;
  while (parts < 20) {  // a step each time
    ++parts;
    message.clear();
    try {
      train_model(run.model, run.out("run"), run.options);
    } catch (const Interrupted& interrupted) {
      message = interrupted.what();
    }
    if (message.empty()) break;
    if (parts == 1) CHECK_THAT(message, Catch::Contains("stopped after step 1, saved in"));
    run.options.resume = true;
  }
  CHECK(parts == 20);
  CHECK(message.empty());
  CHECK(differing_files(run.out("whole") / "step-000020", run.out("run") / "step-000020") ==
        std::vector<std::string>());
}

TEST_CASE("old checkpoints go, the newest and the keepers stay", "[train]") {
  PicoRun run;
  run.options.save_every = 2;
  run.options.keep_last = 3;
  train_model(run.model, run.out("few"), run.options);
  CHECK(names_in(run.out("few")) ==
        std::vector<std::string>{"latest", "report.html", "report.json", "run.json", "step-000016",
                                 "step-000018", "step-000020", "tensorboard", "train.jsonl"});
  run.options.keep_last = 1;
  run.options.keep_every = 6;
  train_model(run.model, run.out("kept"), run.options);
  CHECK(names_in(run.out("kept")) ==
        std::vector<std::string>{"latest", "report.html", "report.json", "run.json", "step-000006",
                                 "step-000012", "step-000018", "step-000020", "tensorboard",
                                 "train.jsonl"});
  CHECK(file_text(run.out("kept") / "latest") == "step-000020\n");
}

TEST_CASE("refusals leave nothing behind", "[train]") {
  PicoRun run;
  const std::vector<std::string> before = names_in(run.scratch.path());
  const auto refusal = [&](const fs::path& model) {
    return error_of([&] { train_model(model, run.out("run"), run.options); });
  };
  SECTION("a token beyond the vocabulary") {
    std::string bytes = file_text(run.options.tokens);
    bytes[2 * 1234] = '\x63';
    write_text(run.options.tokens, bytes);
    const std::string message = refusal(run.model);
    CHECK_THAT(message,
               Catch::Contains("train.u16") && Catch::Contains("1234") && Catch::Contains("99"));
  }
  SECTION("options out of range, all at once") {
    run.options.steps = 0;
    run.options.eta = 1.5;
    run.options.schedule = "cosinus";
    const std::string message = refusal(run.model);
    CHECK_THAT(message, Catch::Contains("steps is 0, wanted at least 1"));
    CHECK_THAT(message, Catch::Contains("eta is 1.5, wanted 0 to 1"));
    CHECK_THAT(message, Catch::Contains(
                            "schedule is 'cosinus', wanted one of cosine, linear, wsd, constant"));
  }
  SECTION("a file without one row") {
    run.options.length = 5000;
    CHECK_THAT(refusal(run.model), Catch::Contains("train.u16") && Catch::Contains("5001"));
  }
  SECTION("an ordinary model without --control") {
    CHECK_THAT(refusal("tests/golden/moue/half_staggered/source"),
               Catch::Contains("is an ordinary model (mixtral), wanted a MoUE"));
  }
  SECTION("a MoUE as the control") {
    run.options.control = true;
    CHECK_THAT(refusal(run.model), Catch::Contains("is a MoUE, wanted the source"));
  }
  SECTION("nothing to resume") {
    run.options.resume = true;
    CHECK_THAT(refusal(run.model), Catch::Contains("does not exist, nothing to resume"));
  }
  CHECK(names_in(run.scratch.path()) == before);
}

TEST_CASE("an output directory that exists is refused and kept", "[train]") {
  PicoRun run;
  fs::create_directory(run.out("run"));
  write_text(run.out("run") / "mine", "text");
  CHECK_THAT(error_of([&] { train_model(run.model, run.out("run"), run.options); }),
             Catch::Contains("exists; name another --out, or go on with --resume"));
  CHECK(names_in(run.out("run")) == std::vector<std::string>{"mine"});
}

}  // namespace moue
