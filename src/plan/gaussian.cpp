// Linear CKA of experts on Gaussian inputs (Kornblith et al., arXiv 1905.00414), with Eigen.
//
// Legend: S samples, D model width, F expert width, N experts of a layer.
#include "core/normal.h"
#include "moue/error.h"
#include "moue/log.h"
#include "plan/blocks.h"
#include "plan/parallel.h"
#include "plan/similarity.h"

#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <numbers>

namespace moue {

namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Block = Eigen::Map<const Matrix>;

/// The centred Gram matrix of an expert's outputs as a vector of length 1: its upper triangle, what
/// lies off the diagonal times sqrt 2, so that CKA is a dot product. Empty where outputs do not
/// vary.
using Gram = std::vector<float>;

// Sums in eight lanes of doubles, in an order that nothing but the length decides: equal experts
// have equal scores.
double dot(const Gram& a, const Gram& b) {
  constexpr size_t kLanes = 8;
  if (a.empty() || b.empty()) return 0;
  std::array<double, kLanes> sums{};
  const size_t whole = a.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane)
      sums[lane] += static_cast<double>(a[i + lane]) * static_cast<double>(b[i + lane]);
  }
  for (size_t i = whole; i < a.size(); ++i)
    sums[i - whole] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  double sum = 0;
  for (const double lane : sums) sum += lane;
  return sum;
}

Gram gram_of(Matrix& y_SD) {
  const Eigen::Index samples = y_SD.rows();
  y_SD.rowwise() -= y_SD.colwise().mean().eval();
  Matrix k_SS = Matrix::Zero(samples, samples);
  k_SS.selfadjointView<Eigen::Upper>().rankUpdate(y_SD);
  double squares = 0;
  for (Eigen::Index i = 0; i < samples; ++i) {
    for (Eigen::Index j = i; j < samples; ++j)
      squares += (i == j ? 1.0 : 2.0) * static_cast<double>(k_SS(i, j)) * k_SS(i, j);
  }
  Gram gram;
  if (squares == 0) return gram;
  gram.reserve(static_cast<size_t>(samples * (samples + 1) / 2));
  const double scale = 1 / std::sqrt(squares);
  for (Eigen::Index i = 0; i < samples; ++i) {
    for (Eigen::Index j = i; j < samples; ++j)
      gram.push_back(static_cast<float>((i == j ? 1 : std::numbers::sqrt2) * scale * k_SS(i, j)));
  }
  return gram;
}

class Experts {
 public:
  Experts(const Checkpoint& source, const Claims& claims, const ModelSpec& spec, int64_t samples)
      : source_(source), claims_(claims), spec_(spec), layers_(spec.moe_layers()) {
    Matrix x_SD(samples, spec.width);
    fill_normal({x_SD.data(), static_cast<size_t>(x_SD.size())}, 0, "moue.similarity", 1);
    inputs_ = x_SD;
  }

  /// What the layer's experts are fed with: the samples behind its norm.
  Matrix inputs(int64_t moe_layer) const {
    Matrix x_SD = inputs_;
    const auto apply = [&](Role role, auto&& f) {
      const auto slice = claims_.slice(role, layers_[moe_layer]);
      if (!slice) return;
      const std::vector<float> values = read_all(source_, *slice);
      f(Eigen::Map<const Eigen::RowVectorXf>(values.data(), spec_.width));
    };
    apply(Role::MlpNorm, [&](const auto& gain) { x_SD.array().rowwise() *= gain.array(); });
    apply(Role::MlpNormBias, [&](const auto& bias) { x_SD.rowwise() += bias; });
    return x_SD;
  }

  Gram gram(const Matrix& x_SD, int64_t moe_layer, int64_t expert) const {
    const auto product = [&](const Matrix& in, Role role, Role bias) {
      const Slice slice = claims_.slice(role, layers_[moe_layer], expert).value();
      Matrix out(in.rows(), slice.rows);
      for_each_block(source_, slice, [&](int64_t first, int64_t rows, auto values) {
        out.middleCols(first, rows).noalias() =
            in * Block(values.data(), rows, slice.columns).transpose();
      });
      if (!spec_.expert_bias) return out;
      const auto found = claims_.slice(bias, layers_[moe_layer], expert);
      const std::vector<float> values = read_all(source_, found.value());
      out.rowwise() += Eigen::Map<const Eigen::RowVectorXf>(values.data(), out.cols());
      return out;
    };
    Matrix gate_SF = product(x_SD, Role::ExpertGate, Role::ExpertGateBias);
    const Matrix up_SF = product(x_SD, Role::ExpertUp, Role::ExpertUpBias);
    activate(gate_SF, up_SF);
    Matrix y_SD = product(gate_SF, Role::ExpertDown, Role::ExpertDownBias);
    if (!y_SD.allFinite()) {
      fail("plan",
           "expert {} of layer {} gives numbers that are not finite; is the source damaged?",
           expert, layers_[moe_layer]);
    }
    return gram_of(y_SD);
  }

 private:
  // gate <- act(gate, up)
  void activate(Matrix& gate_SF, const Matrix& up_SF) const {
    auto gate = gate_SF.array();
    if (spec_.activation == Activation::Silu) {
      gate = gate / (1 + (-gate).exp()) * up_SF.array();
      return;
    }
    const auto alpha = static_cast<float>(spec_.activation_alpha),
               limit = static_cast<float>(spec_.activation_limit);
    gate = gate.min(limit);
    gate = gate / (1 + (-alpha * gate).exp()) * (up_SF.array().max(-limit).min(limit) + 1);
  }

  const Checkpoint& source_;
  const Claims& claims_;
  const ModelSpec& spec_;
  std::vector<int64_t> layers_;
  Matrix inputs_;
};

// Best scores both ways between two layers.
void compare(const std::vector<Gram>& a, int64_t layer_a, const std::vector<Gram>& b,
             int64_t layer_b, std::vector<std::vector<double>>& score) {
  const auto experts = static_cast<int64_t>(a.size());
  Eigen::MatrixXd cka(experts, experts);
  in_parallel(
      experts,
      [&](int64_t i) {
        for (int64_t j = 0; j < experts; ++j) cka(i, j) = std::clamp(dot(a[i], b[j]), 0.0, 1.0);
      },
      [](int64_t) {});
  for (int64_t i = 0; i < experts; ++i) {
    score[layer_b][layer_a * experts + i] = cka.row(i).maxCoeff();
    score[layer_a][layer_b * experts + i] = cka.col(i).maxCoeff();
  }
}

}  // namespace

Similarity gaussian_similarity(const Checkpoint& source, const Claims& claims,
                               const ModelSpec& spec, int64_t reach, int64_t samples) {
  const int64_t layers = spec.num_moe_layers(), all = layers * spec.experts;
  Similarity result{"cka", "gaussian", samples, reach, {}};
  result.score.assign(layers, std::vector<double>(all, Similarity::kUnknown));
  const Experts experts(source, claims, spec, samples);
  std::deque<std::vector<Gram>> before;  // of the `reach` layers before, nearest last
  for (int64_t layer = 0; layer < layers; ++layer) {
    std::vector<Gram> grams(spec.experts);
    const Matrix inputs = experts.inputs(layer);
    in_parallel(
        spec.experts, [&](int64_t expert) { grams[expert] = experts.gram(inputs, layer, expert); },
        [&](int64_t done) {
          log_progress({"plan", static_cast<double>(layer * spec.experts + done),
                        static_cast<double>(all), "experts", "similarity"});
        });
    for (size_t i = 0; i < before.size(); ++i) {
      const int64_t other = layer - static_cast<int64_t>(before.size() - i);
      compare(before[i], other, grams, layer, result.score);
    }
    before.push_back(std::move(grams));
    if (static_cast<int64_t>(before.size()) > reach) before.pop_front();
  }
  return result;
}

}  // namespace moue
