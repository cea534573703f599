// Gradients of the whole model of every family against central differences of transformers in
// float64, along 20 directions (scripts/record_derivatives).
#include "support/torch_test.h"
//
#include <fstream>

#include "support/tolerances.h"
#include "support/torch_compare.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

struct Recorded {
  double loss = 0;
  std::vector<double> derivatives;  ///< by seed
};

Recorded recorded(const std::string& name) {
  std::ifstream file("tests/golden/derivatives/" + name + ".txt");
  Recorded r;
  std::string word;
  file >> word >> r.loss;
  REQUIRE(word == "loss");
  size_t seed = 0;
  for (double value = 0; file >> seed >> value;) {
    REQUIRE(seed == r.derivatives.size());
    r.derivatives.push_back(value);
  }
  return r;
}

uint64_t mixed(uint64_t x) {  // splitmix64
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// As in the script: numbers in [-1, 1) of the tensor's name, the element and the direction.
at::Tensor direction(const std::string& name, at::IntArrayRef shape, uint64_t seed) {
  uint64_t hashed = 0xcbf29ce484222325u;
  for (const char c : name) hashed = (hashed ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  const uint64_t key = mixed(hashed + seed);
  at::Tensor values = at::empty(shape, at::kDouble);
  double* out = values.data_ptr<double>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    const uint64_t bits = mixed((static_cast<uint64_t>(i) + 1) * 0x9e3779b97f4a7c15u + key);
    out[i] = std::ldexp(static_cast<double>(bits >> 11), -52) - 1;
  }
  return values;
}

using Gradients = std::map<std::string, at::Tensor>;

// Gradient times direction, tensor by tensor: [seed][name].
std::vector<std::map<std::string, double>> shares(const Gradients& gradients, size_t seeds) {
  std::vector<std::map<std::string, double>> all(seeds);
  for (size_t seed = 0; seed < seeds; ++seed) {
    for (const auto& [name, gradient] : gradients) {
      all[seed][name] =
          (gradient.to(at::kDouble) * direction(name, gradient.sizes(), seed)).sum().item<double>();
    }
  }
  return all;
}

double worst(const std::vector<std::map<std::string, double>>& shares,
             const std::vector<double>& wanted, const std::string& without = "") {
  double error = 0, largest = 0;
  for (size_t seed = 0; seed < wanted.size(); ++seed) {
    double sum = 0;
    for (const auto& [name, share] : shares[seed]) {
      if (name != without) sum += share;
    }
    error = std::max(error, std::abs(sum - wanted[seed]));
    largest = std::max(largest, std::abs(wanted[seed]));
  }
  return error / largest;
}

struct Trained {
  double loss = 0;
  Gradients gradients;
};

Trained train_once(const fs::path& directory, at::ScalarType dtype) {
  const SafetensorsFile expected(directory / "expected.safetensors");
  const at::Tensor tokens = read_tensor(expected, "tokens");
  const auto model = open_model(directory, {.dtype = dtype, .train = true});
  Pass pass;
  const double targets = static_cast<double>(tokens.size(0) * (tokens.size(1) - 1));
  const at::Tensor loss = model->loss(tokens, {}, 1 / targets, pass);
  loss.backward();
  model->finish_backward();
  return {loss.item<double>(), gradients(*model)};
}

std::vector<fs::path> cases() {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator("tests/golden/families")) {
    if (entry.is_directory()) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

TEST_CASE("gradients agree with float64 differences", "[peer][model]") {
  REQUIRE(cases().size() >= 16);
  for (const fs::path& directory : cases()) {
    INFO(directory);
    const Recorded wanted = recorded(directory.filename());
    REQUIRE(wanted.derivatives.size() == 20);
    const Trained seen = train_once(directory, at::kFloat);
    CHECK(std::abs(seen.loss - wanted.loss) <= tolerance::kMiniMaxLogits * wanted.loss);
    const auto parts = shares(seen.gradients, 20);
    CHECK(worst(parts, wanted.derivatives) <= tolerance::kDerivative);
    // Control: no tensor's gradient can be left out.
    for (const auto& [name, gradient] : seen.gradients) {
      INFO(name);
      if (gradient.abs().max().item<double>() > 0)
        CHECK(worst(parts, wanted.derivatives, name) > 2 * tolerance::kDerivative);
    }
  }
}
