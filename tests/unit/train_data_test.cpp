// Rows of training steps: several sources, documents, masks; the same whatever the micro-batches.
#include "support/torch_test.h"

#include <fmt/format.h>

#include <cstring>
#include <set>

#include "model/windows.h"
#include "moue/model.h"
#include "support/torch_pico.h"
#include "train/data.h"
#include "train/loop.h"

namespace moue {
namespace {

using namespace test;

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// Documents of the given lengths; token i of document d is 10 d + i, so that each says whose it is.
fs::path write_documents(const fs::path& stem, const std::vector<int32_t>& lengths) {
  std::vector<uint16_t> tokens;
  std::vector<int64_t> offsets, documents = {0};
  for (size_t d = 0; d < lengths.size(); ++d) {
    offsets.push_back(static_cast<int64_t>(2 * tokens.size()));
    documents.push_back(static_cast<int64_t>(d + 1));
    for (int32_t i = 0; i < lengths[d]; ++i)
      tokens.push_back(static_cast<uint16_t>(10 * d + static_cast<size_t>(i)));
  }
  const std::string head = std::string("MMIDIDX\0\0", 9) + bytes_of(std::vector<uint64_t>{1}) +
                           std::string(1, '\x08') +
                           bytes_of(std::vector<uint64_t>{lengths.size(), documents.size()});
  write_text(stem.native() + ".idx",
             head + bytes_of(lengths) + bytes_of(offsets) + bytes_of(documents));
  write_text(stem.native() + ".bin", bytes_of(tokens));
  return stem.native() + ".idx";
}

TrainOptions options_of(const fs::path& tokens) {
  TrainOptions options;
  options.tokens = tokens;
  options.length = 4;
  options.batch = 3;
  options.documents = "separate";
  return options;
}

}  // namespace

TEST_CASE("no counted target stands in another document than its inputs", "[train]") {
  const Scratch scratch;
  const fs::path file = write_documents(scratch / "text", {3, 8, 1, 6, 9});
  TrainOptions options = options_of(file);
  const std::string documents = GENERATE("separate", "packed");
  options.documents = documents;
  const TrainData data(options, 100);
  std::multiset<int64_t> counted;
  int64_t strangers = 0;
  const int64_t steps = documents == "separate" ? 2 : 3;  // two epochs of 7 or 6 rows, or so
  for (int64_t step = 0; step < steps; ++step) {
    const Batch batch = data.batch(step);
    CHECK(batch.mask_BT.defined() == (documents == "separate"));
    for (int64_t row = 0; row < 3; ++row) {
      const int64_t* tokens = batch.rows_BT1.data_ptr<int64_t>() + row * 5;
      for (int64_t i = 0; i < 4; ++i) {
        if (batch.mask_BT.defined() && !batch.mask_BT[row][i].item<bool>()) continue;
        counted.insert(tokens[i + 1]);
        for (int64_t j = 0; j <= i; ++j) strangers += tokens[j] / 10 != tokens[i + 1] / 10;
      }
    }
  }
  if (documents == "separate") {
    CHECK(strangers == 0);
    for (const int64_t first : {0, 10, 20, 30, 40}) CHECK(counted.count(first) == 0);
  } else {
    CHECK(strangers > 0);
  }
  options.tokens = scratch / "raw.u16";
  write_tokens(options.tokens, 100, 1);
  const std::string message = error_of([&] { TrainData(options, 100); });
  if (documents == "separate") {
    CHECK_THAT(message, Catch::Contains("raw.u16 knows no document boundaries, wanted a Megatron"));
  } else {
    CHECK(message.empty());
  }
}

TEST_CASE("an epoch of documents has every target once", "[train]") {
  const Scratch scratch;
  TrainOptions options = options_of(write_documents(scratch / "text", {3, 8, 1, 6, 9}));
  options.batch = 7;  // rows: 1, 2, 2 and 2
  const TrainData data(options, 100);
  std::set<int64_t> counted;
  const Batch batch = data.batch(0);
  for (int64_t row = 0; row < 7; ++row) {
    for (int64_t i = 0; i < 4; ++i) {
      if (batch.mask_BT[row][i].item<bool>())
        CHECK(counted.insert(batch.rows_BT1[row][i + 1].item<int64_t>()).second);
    }
  }
  CHECK(counted.size() == 2 + 7 + 5 + 8);
  CHECK(batch.num_targets == 22);
  CHECK(data.epochs(1) == 1);
}

TEST_CASE("sources give their share, each in its own order, whatever the micro-batch", "[train]") {
  const Scratch scratch;
  write_tokens(scratch / "a.u16", 4001, 1);
  std::vector<uint16_t> others;  // such as the first file never has in a row
  for (uint16_t i = 0; i < 401; ++i) others.push_back(static_cast<uint16_t>(i * i % 7));
  write_text(scratch / "b.u16", bytes_of(others));
  TrainOptions options;
  options.data = {{scratch / "a.u16", 3, ""}, {scratch / "b.u16", 1, ""}};
  options.length = 10;
  options.batch = 8;
  options.order = GENERATE("shuffled", "sequential");
  const TrainData data(options, 61);
  const at::Tensor b = windows_of(TokenFile(scratch / "b.u16"), 10);
  int64_t of_b = 0;
  for (int64_t step = 0; step < 20; ++step) {
    const Batch batch = data.batch(step);
    for (int64_t row = 0; row < 8; ++row)
      of_b += b.eq(batch.rows_BT1[row]).all(1).any().item<bool>();
    options.micro_batch = 2;
    CHECK(at::equal(batch.rows_BT1, TrainData(options, 61).batch(step).rows_BT1));
  }
  CHECK(of_b == 40);
  CHECK(data.epochs(20) == Approx(160.0 / 440));
  if (options.order == "sequential") {
    std::vector<at::Tensor> rows;  // of b among the first 16 rows
    for (const int64_t step : {0, 1}) {
      const Batch batch = data.batch(step);
      for (int64_t row = 0; row < 8; ++row) {
        if (b.eq(batch.rows_BT1[row]).all(1).any().item<bool>())
          rows.push_back(batch.rows_BT1[row]);
      }
    }
    CHECK(at::equal(at::stack(rows), b.narrow(0, 0, 4)));
  } else {
    options.seed = 1;
    CHECK_FALSE(at::equal(data.batch(0).rows_BT1, TrainData(options, 61).batch(0).rows_BT1));
  }
}

TEST_CASE("a run of several sources is resumed bit for bit, with the same sources", "[train]") {
  PicoRun run;
  write_tokens(run.scratch / "more.u16", 1500, 9);
  run.options.data = {{run.options.tokens, 2, ""}, {run.scratch / "more.u16", 1, ""}};
  run.options.tokens.clear();
  train_model(run.model, run.out("whole"), run.options);
  run.options.stop_after = 9;
  train_model(run.model, run.out("half"), run.options);
  fs::copy(run.out("half"), run.out("other"), fs::copy_options::recursive);
  run.options.stop_after = 0;
  run.options.resume = true;
  train_model(run.model, run.out("half"), run.options);
  CHECK(differing_files(run.out("whole") / "step-000020", run.out("half") / "step-000020").empty());

  const fs::path state = run.out("other") / "step-000009" / "training" / "state.json";
  replace_text(state, "\"data_step\": 9", "\"data_step\": 3");
  renew_manifest(run.out("other") / "step-000009");
  train_model(run.model, run.out("other"), run.options);
  CHECK_FALSE(
      differing_files(run.out("whole") / "step-000020", run.out("other") / "step-000020").empty());

  run.options.data[1].weight = 2;
  CHECK_THAT(error_of([&] { train_model(run.model, run.out("half"), run.options); }),
             Catch::Contains("tokens is 0.5000 of 4000 tokens that begin with"));
  run.options.tokens = run.scratch / "train.u16";
  run.options.data[1].weight = -1;
  const std::string message = error_of([&] { train_model(run.model, run.out("x"), run.options); });
  CHECK_THAT(message, Catch::Contains("beside 2 rows of data, wanted one of them"));
  CHECK_THAT(message, Catch::Contains("data.weight is -1, wanted a number above 0"));
}

TEST_CASE("held-out loss is of the targets that its mask counts", "[train]") {
  PicoRun run;
  std::string mask(400, '\0');
  for (size_t i = 0; i < mask.size(); i += 3) mask[i] = 1;
  write_text(run.scratch / "held_out.mask", mask);
  run.options.steps = 1;
  const Report report = train_model(run.model, run.out("run"), run.options);
  double seen = 0;
  for (const Fact& fact : report.facts) {
    if (fact.key == "held_out_last") seen = std::get<double>(fact.value);
  }
  const auto model = Model::open(open_checkpoint(run.out("run") / "step-000001"), {});
  const TokenFile tokens(run.options.held_out);
  const at::Tensor windows = windows_of(tokens, 12), counts = masks_of(tokens, 12);
  REQUIRE(counts.sizes() == at::IntArrayRef({33, 12}));
  // Window w, target t is token 12 w + t + 1.
  CHECK(counts[1].nonzero()[0].item<int64_t>() == 2);
  Pass pass;
  model->loss(windows, {}, 1.0, pass);
  const at::Tensor losses = pass.token_loss.to(at::kDouble).view({33, 12});
  CHECK(seen == Approx(losses.masked_select(counts).mean().item<double>()).epsilon(1e-6));
  CHECK(seen != Approx(losses.mean().item<double>()).epsilon(1e-4));
  write_text(run.scratch / "held_out.mask", std::string(400, '\0'));
  CHECK_THAT(error_of([&] { train_model(run.model, run.out("none"), run.options); }),
             Catch::Contains("its mask counts none of the targets"));
}

}  // namespace moue
