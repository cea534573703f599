// A closed MoUE is its source, bit for bit: every topology, dtype, number of threads; and not when
// a slot is opened.
#include "support/torch_test.h"

#include "moue/convert.h"
#include "moue/plan.h"
#include "support/scratch.h"
#include "support/torch_compare.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

struct Seen {
  at::Tensor logits;
  std::vector<Routed> routed;
};

Seen run(Model& model, const at::Tensor& tokens) {
  const at::NoGradGuard no_grad;
  Pass pass;
  Seen seen;
  seen.logits = model.logits(tokens, pass);
  seen.routed = pass.routed;
  return seen;
}

bool same(const Seen& a, const Seen& b) {
  bool equal = same_numbers(a.logits, b.logits) && a.routed.size() == b.routed.size();
  for (size_t layer = 0; equal && layer < a.routed.size(); ++layer) {
    equal = same_numbers(a.routed[layer].chosen_TK, b.routed[layer].chosen_TK) &&
            same_numbers(a.routed[layer].gate_TK, b.routed[layer].gate_TK);
  }
  return equal;
}

const fs::path kFamilies = "tests/golden/families";

std::vector<fs::path> sources() {
  std::vector<fs::path> found{"examples/tiny-mixtral", "tests/golden/moue/aligned/source"};
  for (const auto& entry : fs::directory_iterator(kFamilies)) {
    if (entry.is_directory()) found.push_back(entry.path());
  }
  return found;
}

// Every topology for two sources, two of them for every family.
std::vector<std::string> topologies_for(const fs::path& directory) {
  if (directory.parent_path() == kFamilies) return {"half_staggered", "one_pool"};
  return topology_names();
}

}  // namespace

TEST_CASE("a closed MoUE is bit-equal to its source", "[peer][model]") {
  const fs::path directory = GENERATE(from_range(sources()));
  const Checkpoint source = open_checkpoint(directory);
  const at::Tensor tokens =
      at::randint(0, source.config().integer("vocab_size"), {3, 57}, at::kLong);
  ScratchDir scratch;
  for (const std::string& topology : topologies_for(directory)) {
    const Plan plan =
        make_plan(source, family_of(source.config()), nullptr, {.topology = topology});
    convert(source, plan, nullptr, scratch / topology, {});
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      for (const int threads : {1, 2}) {
        INFO(directory << " " << topology << " " << dtype << " threads " << threads);
        set_threads(threads);
        const auto before = open_model(directory, {.dtype = dtype});
        const auto after = open_model(scratch / topology, {.dtype = dtype});
        const Seen wanted = run(*before, tokens);
        CHECK(same(run(*after, tokens), wanted));
        if (plan.pool.num_foreign(0) == 0) continue;
        // Control: open, it is another function.
        after->set_visibility(open_visibility(after->pool()));
        CHECK_FALSE(same(run(*after, tokens), wanted));
      }
    }
  }
  set_threads(0);
}
