// Models of FP8 and MXFP4 checkpoints: the bits of their unpacked twins, and trained weights that
// are written plain.
#include "support/torch_test.h"

#include "support/torch_compare.h"
#include "support/torch_pico.h"
#include "train/loop.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

at::Tensor tokens() { return at::arange(40).view({2, 20}); }

}  // namespace

TEST_CASE("a packed model computes what its unpacked twin does, bit for bit", "[peer][model]") {
  for (const std::string name : {"fp8", "mxfp4"}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      INFO(name << " " << at::toString(dtype));
      const fs::path packed = "tests/golden/packed/" + name;
      const fs::path plain = "tests/golden/packed/" + name + "_plain";
      const at::Tensor wanted = logits_of(*open_model(plain, {.dtype = dtype}), tokens());
      CHECK(same_numbers(logits_of(*open_model(packed, {.dtype = dtype}), tokens()), wanted));
      CHECK(same_numbers(
          logits_of(*open_model(packed, {.dtype = dtype, .memory = 1 << 20}), tokens()), wanted));
      // Another model's numbers are told apart.
      const auto other = open_model(packed, {.dtype = dtype});
      for (Parameter& parameter : other->parameters()) {
        if (parameter.kind == ParameterKind::Expert)
          parameter.value.copy_(parameter.value.roll(1, 0).clone());
      }
      CHECK_FALSE(same_numbers(logits_of(*other, tokens()), wanted));
    }
  }
}

TEST_CASE("what is trained from packed weights is written plain and opens again", "[train]") {
  for (const std::string name : {"fp8", "mxfp4"}) {
    INFO(name);
    PicoRun run;
    const fs::path source = "tests/golden/packed/" + name;
    const fs::path out = run.out(name);
    TrainOptions options = run.options;
    options.control = true;
    options.steps = 2;
    train_model(source, out, options);
    const Checkpoint trained = open_checkpoint(out / "step-000002");
    CHECK_FALSE(trained.config().has("quantization_config"));
    CHECK_FALSE(claim(trained, family_of(trained.config())).is_packed());
    for (const TensorInfo& tensor : trained.tensors()) {
      INFO(tensor.name);
      CHECK_FALSE(tensor.name.ends_with("_scale_inv"));
      CHECK_FALSE(tensor.name.ends_with("_scales"));
      CHECK((tensor.dtype == Dtype::F32 || tensor.dtype == Dtype::BF16));
    }
    const auto before = open_model(source), after = open_model(out / "step-000002");
    REQUIRE(before->parameters().size() == after->parameters().size());
    // Two small steps: near the source everywhere, equal nowhere.
    for (size_t i = 0; i < before->parameters().size(); ++i) {
      const at::Tensor a = before->parameters()[i].value, b = after->parameters()[i].value;
      INFO(before->parameters()[i].name);
      REQUIRE(a.sizes() == b.sizes());
      CHECK((a - b).abs().max().item<double>() < 0.02 * (1 + a.abs().max().item<double>()));
    }
    CHECK_FALSE(same_numbers(logits_of(*before, tokens()), logits_of(*after, tokens())));
  }
}

TEST_CASE("a run on packed weights goes on from its plain steps", "[train]") {
  for (const std::string name : {"fp8", "mxfp4"}) {
    INFO(name);
    PicoRun run;
    const fs::path source = "tests/golden/packed/" + name;
    TrainOptions options = run.options;
    options.control = true;
    options.steps = 4;
    train_model(source, run.out("whole"), options);
    TrainOptions half = options;
    half.stop_after = 2;
    train_model(source, run.out("half"), half);
    half.stop_after = 0;
    half.resume = true;
    train_model(source, run.out("half"), half);
    CHECK(differing_files(run.out("whole") / "step-000004", run.out("half") / "step-000004") ==
          std::vector<std::string>());
    // Control: an earlier step is another one.
    CHECK_FALSE(
        differing_files(run.out("whole") / "step-000004", run.out("half") / "step-000002").empty());
  }
}
