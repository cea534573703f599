// Layouts as the model reads them: packed and exported directories compute, measure and train what
// linked ones do.
#include "support/torch_test.h"

#include "moue/measure.h"
#include "moue/train.h"
#include "moue/validate.h"
#include "support/layouts.h"
#include "support/scratch.h"
#include "support/torch_compare.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

const fs::path kTiny = "examples/tiny-mixtral";
const fs::path kTokens = "examples/tiny-mixtral/data/more.u16";

at::Tensor logits_at(const fs::path& directory) {
  const auto model = open_model(directory);
  const at::Tensor tokens = at::arange(24, at::kLong).reshape({2, 12});
  return logits_of(*model, tokens);
}

// The journal's losses of three steps.
std::string losses(const fs::path& model, const fs::path& out) {
  TrainOptions options;
  options.tokens = kTokens;
  options.steps = 3;
  options.batch = 2;
  options.length = 16;
  options.calibrate.tokens = 2000;
  options.threads = 1;
  train(model, out, options);
  std::string text;
  std::istringstream lines(file_text(out / "train.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const size_t loss = line.find("\"loss\"");
    if (loss != line.npos) text += line.substr(loss, line.find(',', loss) - loss) + "\n";
  }
  return text;
}

}  // namespace

TEST_CASE("every family: packed and exported models give the source's logits", "[convert]") {
  for (const std::string& folder : family_folders()) {
    INFO(folder);
    const Scratch scratch;
    to_moue(folder, scratch / "packed", layout("packed"));
    relayout(scratch / "packed", scratch / "export", layout("export"));
    const at::Tensor wanted = logits_at(folder);
    CHECK(same_numbers(logits_at(scratch / "packed"), wanted));
    CHECK(same_numbers(logits_at(scratch / "export"), wanted));
    CHECK_FALSE(same_numbers(wanted + 1e-6, wanted));
  }
}

TEST_CASE("a packed model passes every gate; a rounded one those that apply", "[convert]") {
  const Scratch scratch;
  const fs::path source = "tests/golden/families/mixtral";
  to_moue(source, scratch / "packed", layout("packed"));
  ConvertOptions rounded = layout("packed");
  rounded.dtype = "bfloat16";
  to_moue(source, scratch / "rounded", rounded);
  ValidateOptions options;
  options.threads = 1;
  const auto outcome = [&](const fs::path& result, const std::string& name) {
    const Report report = validate(open_checkpoint(source), result, options);
    CHECK(report.passed());
    for (const Check& check : report.checks) {
      if (check.name.starts_with(name)) return check.outcome;
    }
    throw std::logic_error("no check " + name);
  };
  CHECK(outcome(scratch / "packed", "G1 logits") == Outcome::Pass);
  CHECK(outcome(scratch / "rounded", "G1") != Outcome::Fail);
  CHECK(outcome(scratch / "rounded", "G3") == Outcome::Pass);
}

TEST_CASE("training and measuring read what is packed", "[convert]") {
  const Scratch scratch;
  to_moue(kTiny, scratch / "linked");
  relayout(scratch / "linked", scratch / "packed", layout("packed"));
  const std::string wanted = losses(scratch / "linked", scratch / "from-linked");
  CHECK(std::ranges::count(wanted, '\n') >= 3);
  CHECK(losses(scratch / "packed", scratch / "from-packed") == wanted);
  // What was trained is moved too: packed, and with its slots open no longer exported.
  const fs::path step = scratch / "from-packed/step-000003";
  relayout(step, scratch / "trained", layout("packed"));
  CHECK(digests_of(scratch / "trained") == digests_of(step));
  CHECK(same_numbers(logits_at(scratch / "trained"), logits_at(step)));
  CHECK_THROWS_WITH(relayout(step, scratch / "x", layout("export")),
                    Catch::Contains("compute what an ordinary layer cannot"));

  relayout(scratch / "packed", scratch / "export", layout("export"));
  MeasureOptions options;
  options.tokens = kTokens;
  options.max_tokens = 256;
  options.length = 64;
  options.threads = 1;
  const auto load = [&](const fs::path& source) {
    return measure(open_checkpoint(source), nullptr, options).load;
  };
  CHECK(load(scratch / "export") == load(kTiny));
}
