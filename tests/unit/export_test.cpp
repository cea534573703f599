// Export: what an ordinary model can compute is written as one; what it cannot is refused, layer by
// layer. And what no plan, layout or memory allows.
#include <catch2/catch.hpp>

#include <algorithm>

#include "checkpoint/manifest.h"
#include "moue/error.h"
#include "support/files.h"
#include "support/layouts.h"
#include "support/loose_model.h"
#include "support/messages.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

const fs::path kPico = "tests/golden/families/mixtral";
const fs::path kTiny = "examples/tiny-mixtral";

std::string refusal(const fs::path& source, const ConvertOptions& options) {
  const Scratch scratch;
  const std::string message = message_of([&] { relayout(source, scratch / "out", options); });
  CHECK(fs::is_empty(scratch.path()));
  return message;
}

std::string refusal_with_plan(const fs::path& source, const ConvertOptions& options) {
  const Scratch scratch;
  const std::string message = message_of([&] { to_moue(source, scratch / "out", options); });
  CHECK(fs::is_empty(scratch.path()));
  return message;
}

// A closed conversion of kPico that was changed.
class Changed {
 public:
  Changed() {
    to_moue(kPico, scratch_ / "closed");
    model_.emplace(scratch_ / "closed");
  }
  LooseModel& operator*() { return *model_; }
  LooseModel* operator->() { return &*model_; }
  std::string exported() {
    fs::remove_all(scratch_ / "changed");
    fs::remove_all(scratch_ / "export");
    model_->write(scratch_ / "changed");
    return message_of(
        [&] { relayout(scratch_ / "changed", scratch_ / "export", layout("export")); });
  }
  fs::path result() const { return scratch_ / "export"; }

 private:
  Scratch scratch_;
  std::optional<LooseModel> model_;
};

}  // namespace

TEST_CASE(
    "an opened model is refused, every layer that is not expressible named with its reasons") {
  for (const std::string name : {"aligned", "half_staggered", "ring_stride"}) {
    const fs::path model = fs::path("tests/golden/moue") / name / "model";
    const std::string message = refusal(model, layout("export"));
    INFO(message);
    const Pool pool = read_pool(Config::read(model / "config.json"));
    CHECK(contains(message, "compute what an ordinary layer cannot"));
    for (size_t layer = 0; layer < pool.slots.size(); ++layer) {
      CHECK(contains(message, fmt::format("layer {} has", pool.moe_layers[layer])));
    }
    CHECK(contains(message, "foreign slots open"));
  }
}

TEST_CASE("numbers decide, each of them, and the layers they stand in") {
  Changed model;
  CHECK(model.exported() == "");
  CHECK(digests_of(model.result()) == digests_of(kPico));

  const int64_t foreign = model->pool.num_foreign(1);
  model->floats(names::router_visibility(1))[2] = 0.25F;
  std::string message = model.exported();
  CHECK(contains(message, "1 layer of"));
  CHECK(contains(message, fmt::format("layer 1 has 1 of {} foreign slots open;", foreign)));
  CHECK(contains(message, "close them, or keep the model a MoUE (layout packed)"));
  model->floats(names::router_visibility(1))[2] = 0;

  model->floats(names::trajectory_gain(0))[3] = 1;  // the state is 0 there
  CHECK(model.exported() == "");
  model->floats(names::trajectory_gain(2))[3] = 1e-30F;
  CHECK(contains(model.exported(), "layer 2 has a trajectory gain;"));
  model->floats(names::trajectory_gain(2))[3] = 0;

  const int64_t experts = model->pool.experts_per_layer;
  model->floats(names::kPoolBias)[static_cast<size_t>(2 * experts)] = -1;
  model->floats(names::kPoolBias)[static_cast<size_t>(experts - 1)] = 1;
  message = model.exported();
  CHECK(contains(message, "2 layers of"));
  CHECK(contains(message, "layer 0 has selection biases of 1 own experts; layer 2 has"));
}

TEST_CASE("a trained or relocked model whose foreign slots are closed is an ordinary one") {
  for (const std::string state : {"trained", "relocked", "opened"}) {
    Changed model;
    model->config["moue"]["state"] = state;
    model->at(Role::ExpertUp, 1, 2).bytes[5] ^= std::byte{1};  // trained numbers
    CHECK(model.exported() == "");
    TensorDigests wanted = digests_of(kPico), seen = digests_of(model.result());
    const auto differ = std::ranges::count_if(
        seen, [&](const auto& entry) { return wanted.at(entry.first) != entry.second; });
    CHECK(seen.size() == wanted.size());
    CHECK(differ == 1);
    CHECK_FALSE(is_moue(Config::read(model.result() / "config.json")));
  }
}

TEST_CASE("an export knows what it left out, and is named as readers of one file expect") {
  const Scratch scratch;
  to_moue(kTiny, scratch / "moue", layout("packed"), 4);
  const Report report = relayout(scratch / "moue", scratch / "export", layout("export"));
  CHECK(fs::exists(scratch / "export/model.safetensors"));
  CHECK_FALSE(fs::exists(scratch / "export/model.safetensors.index.json"));
  const Manifest ledger = read_manifest(scratch / "export");
  CHECK(ledger.tensors.at("moue.experts.0.gate.weight") == "dropped: of the pool");
  CHECK(ledger.tensors.at("lm_head.weight") == "copied model.safetensors");
  CHECK_THAT(report.warnings.at(0), Contains("left out"));
  // Several files have an index, as every reader wants it.
  ConvertOptions small = layout("export");
  small.shard_size = 2'000'000;
  relayout(scratch / "moue", scratch / "sharded", small);
  CHECK_FALSE(fs::exists(scratch / "sharded/model.safetensors"));
  CHECK(digests_of(scratch / "sharded") == digests_of(kTiny));
  // An ordinary model is written anew in the same way.
  relayout(kTiny, scratch / "anew", layout("export"));
  CHECK(file_text(scratch / "anew/model.safetensors") ==
        file_text(scratch / "export/model.safetensors"));
}

TEST_CASE("what contradicts itself is refused with what to do") {
  const Scratch scratch;
  to_moue(kPico, scratch / "moue");
  const fs::path moue = scratch / "moue";
  CHECK(contains(refusal_with_plan(kPico, layout("export")),
                 "layout 'export' writes an ordinary model, and tests/golden/families/mixtral is "
                 "one already; leave the plan out, or take linked or packed"));
  CHECK(contains(refusal(kPico, layout("packed")),
                 "layout 'packed' of tests/golden/families/mixtral, an ordinary model, would be a "
                 "MoUE, wanted a plan; make one"));
  const Checkpoint converted = open_checkpoint(moue);
  const Plan plan = plan_for(open_checkpoint(kPico));
  CHECK(contains(message_of([&] { convert(converted, plan, nullptr, scratch / "x", {}); }),
                 "is a MoUE already; convert the model it was made from, or leave the plan out"));
  ConvertOptions options;
  options.dtype = "bfloat16";
  CHECK(contains(refusal(moue, options),
                 "dtype is 'bfloat16', but layout 'linked' keeps the source's bytes; take packed "
                 "or export"));
  CHECK(contains(refusal_with_plan(kPico, options), "take packed"));
  options = layout("packed");
  options.dtype = "int8";
  CHECK(contains(refusal(moue, options), "no dtype 'int8'; known: float32, bfloat16, float16"));
  options.dtype = "float32";
  for (const char* packed : {"fp8", "mxfp4"}) {
    CHECK(contains(refusal_with_plan(fs::path("tests/golden/packed") / packed, options),
                   "holds weights that are packed"));
  }
  options = layout("packed");
  options.memory = 1 << 18;
  options.threads = 4;
  CHECK(contains(refusal(moue, options), "memory is 262144 bytes, wanted at least"));
}
