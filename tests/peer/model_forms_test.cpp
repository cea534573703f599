// A model in PyTorch's or Mistral's form computes what the safetensors of transformers compute.
#include "support/torch_test.h"

#include "support/consolidated.h"
#include "support/scratch.h"
#include "support/torch_compare.h"

using namespace moue;
using namespace moue::test;

namespace {

at::Tensor logits_in(const std::filesystem::path& directory, const at::Tensor& tokens) {
  return logits_of(*open_model(directory), tokens);
}

}  // namespace

TEST_CASE("a consolidated Mixtral gives equal logits", "[peer][forms]") {
  const ScratchDir scratch;
  const Checkpoint source = open_checkpoint("examples/tiny-mixtral");
  const at::Tensor tokens = at::arange(2 * 40).view({2, 40}) * 23 % 2048;
  const at::Tensor wanted = logits_in(source.directory(), tokens);
  write_consolidated(source, {Names::EachExpert, false, 1}, scratch / "each");
  CHECK(same_numbers(logits_in(scratch / "each", tokens), wanted));
  write_consolidated(source, {Names::Stacked, true, 2}, scratch / "stacked");
  CHECK(same_numbers(logits_in(scratch / "stacked", tokens), wanted));
  write_pytorch(source, 2, scratch / "pytorch");
  CHECK(same_numbers(logits_in(scratch / "pytorch", tokens), wanted));
  write_consolidated(source, {Names::EachExpert, false, 1, false}, scratch / "unturned");
  CHECK_FALSE(same_numbers(logits_in(scratch / "unturned", tokens), wanted));
}
