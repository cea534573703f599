// The recorded numbers of tests/golden/moue, as the model's tests read them.
#include "support/torch_test.h"
//
#include "support/torch_golden.h"

#include "support/tolerances.h"
#include "support/torch_compare.h"

namespace moue::test {

std::vector<std::string> golden_topologies() {
  return {"aligned", "half_staggered", "ring_stride"};
}

std::filesystem::path golden_moue(const std::string& topology) {
  return std::filesystem::path("tests/golden/moue") / topology;
}

GoldenRows::GoldenRows(const at::Tensor& tokens)
    : rows(at::cat({tokens, at::zeros({tokens.size(0), 1}, at::kLong)}, 1)),
      mask(at::ones_like(tokens, at::kBool)) {
  mask.select(1, tokens.size(1) - 1).fill_(false);
}

double GoldenRows::scale() const { return 1.0 / mask.sum().item<double>(); }

at::Tensor golden_gradient(const std::map<std::string, at::Tensor>& ours, std::string name) {
  const auto last = name.substr(name.rfind('.') + 1);
  if (name.starts_with("foreign_weight.")) return ours.at("moue.layers." + last + ".router.weight");
  if (name.starts_with("foreign_bias.")) return ours.at("moue.layers." + last + ".router.bias");
  if (name.starts_with("foreign_scale.")) return ours.at("moue.layers." + last + ".router.scale");
  if (name.starts_with("trajectory_gain."))
    return ours.at("moue.layers." + last + ".trajectory.gain");
  if (name == "key" || name == "query" || name == "decay_logit")
    return ours.at("moue.trajectory." + name);
  REQUIRE(name.starts_with("base."));
  name = name.substr(5);
  const auto mlp = name.find(".mlp.");
  if (mlp == std::string::npos) return ours.at(name);
  const std::string moe = name.substr(0, mlp) + ".block_sparse_moe.";
  if (name.ends_with("gate.weight")) return ours.at(moe + "gate.weight");
  std::vector<at::Tensor> experts;
  for (int e = 0; e < 5; ++e) {
    const std::string expert = moe + "experts." + std::to_string(e) + ".";
    experts.push_back(name.ends_with("down_proj") ? ours.at(expert + "w2.weight")
                                                  : at::cat({ours.at(expert + "w1.weight"),
                                                             ours.at(expert + "w3.weight")}));
  }
  return at::stack(experts);
}

int compare_gradients(const SafetensorsFile& expected, const std::string& prefix,
                      const std::map<std::string, at::Tensor>& ours) {
  int count = 0;
  for (const TensorInfo& info : expected.tensors()) {
    if (!info.name.starts_with(prefix)) continue;
    INFO(info.name);
    const at::Tensor wanted = read_tensor(expected, info.name);
    CHECK(relative_error(golden_gradient(ours, info.name.substr(prefix.size())), wanted) <=
          tolerance::kGoldenGradient);
    ++count;
  }
  return count;
}

}  // namespace moue::test
