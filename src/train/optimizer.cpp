// AdamW over a model's parameters: the groups are decided here, the arithmetic is kernels/adamw.h.
#include "train/optimizer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/adamw.h"
#include "model/ops.h"

namespace moue {
namespace {

bool is_trajectory(ParameterKind kind) {
  return kind == ParameterKind::Gain || kind == ParameterKind::Trajectory;
}

bool decays(ParameterKind kind) {
  return kind == ParameterKind::Matrix || kind == ParameterKind::Expert ||
         kind == ParameterKind::ForeignRow;
}

bool is_new(const Parameter& parameter) {
  return !parameter.disk.empty() && is_pool_tensor(parameter.disk.front().name);
}

// The decay of each foreign row, on the device of the rows; the last slots of the layer are the
// foreign ones.
at::Tensor row_decay(const Parameter& rows, const Visibility& visibility, double decay) {
  const std::vector<double>& m = visibility[rows.moe_layer];
  const int64_t num_rows = rows.value.size(0);
  at::Tensor decays = at::zeros({num_rows}, at::kFloat);
  for (int64_t r = 0; r < num_rows; ++r) {
    if (m[m.size() - num_rows + r] > 0) decays.data_ptr<float>()[r] = static_cast<float>(decay);
  }
  return decays.to(rows.value.device());
}

void* element_at(const at::Tensor& tensor, int64_t element) {
  return static_cast<char*>(tensor.data_ptr()) + element * tensor.element_size();
}

}  // namespace

bool Moving::operator()(const Parameter& parameter) const {
  return is_trajectory(parameter.kind) ? trajectory : others;
}

Optimizer::Optimizer(std::vector<Parameter>& parameters, const AdamwOptions& options,
                     std::vector<ParameterGroup> groups)
    : parameters_(parameters), options_(options), groups_(std::move(groups)) {
  for (const Parameter& parameter : parameters_) {
    const auto type = parameter.value.options().dtype(options_.moments).requires_grad(false);
    const std::vector<int64_t> shape = trained_shape(parameter);
    moments_.push_back({at::zeros(shape, type), at::zeros(shape, type), 0});
  }
  if (!groups_.empty()) return;
  for (const Parameter& parameter : parameters_) {
    ParameterGroup& group = groups_.emplace_back();
    for (const ElementRange& range : trained(parameter)) group.pieces.push_back({range, 1, -1});
  }
}

bool Optimizer::moves(const Parameter& parameter, Moving moving) const {
  const ParameterGroup& group = groups_[&parameter - parameters_.data()];
  return moving(parameter) && !group.pieces.empty() && moving.step >= group.start_step;
}

double Optimizer::gradient_norm(Moving moving) const {
  if (parameters_.empty()) return 0;
  const auto doubles = parameters_.front().value.options().dtype(at::kDouble).requires_grad(false);
  int64_t most = 1;
  for (const Parameter& parameter : parameters_)
    most = std::max(most, kernels::sum_of_squares_partials(parameter.value.numel()));
  const at::Tensor partial = at::empty({most}, doubles);
  const at::Tensor squares = at::zeros({static_cast<int64_t>(parameters_.size())}, doubles);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& grad = parameters_[i].grad;
    if (!moves(parameters_[i], moving) || grad.numel() == 0) continue;
    kernels::sum_of_squares(grad.data_ptr<float>(), grad.numel(), partial.data_ptr<double>(),
                            squares.data_ptr<double>() + i, where_of(grad));
  }
  const at::Tensor host = squares.cpu();  // the one wait
  return std::sqrt(
      std::accumulate(host.data_ptr<double>(), host.data_ptr<double>() + host.numel(), 0.0));
}

void Optimizer::update(double lr, double norm, Moving moving, const Visibility& visibility) {
  const double scale = options_.clip > 0 && norm > options_.clip ? options_.clip / norm : 1.0;
  const Step step{lr, scale, moving.step, visibility};
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!moves(parameters_[i], moving)) continue;
    ++moments_[i].updates;
    int64_t offset = 0;  // in gradient and moments, where frozen elements have no place
    for (const GroupPiece& piece : groups_[i].pieces) {
      update(i, piece, offset, step);
      offset += piece.range.end - piece.range.begin;
    }
  }
}

void Optimizer::update(size_t index, const GroupPiece& piece, int64_t offset, const Step& step) {
  constexpr uint64_t kDomain = 0x726f756e64;  // apart from other draws under the same seed
  const Parameter& parameter = parameters_[index];
  const Moments& moments = moments_[index];
  const auto t = static_cast<double>(moments.updates);
  const double decay = piece.weight_decay < 0 ? options_.weight_decay : piece.weight_decay;
  const at::Tensor& weights = weights_of(parameter);
  at::Tensor per_row;
  if (parameter.kind == ParameterKind::ForeignRow)
    per_row = row_decay(parameter, step.visibility, decay);
  kernels::adamw(
      {.master = element_at(weights, piece.range.begin),
       .grad = parameter.grad.data_ptr<float>() + offset,
       .m = element_at(moments.first, offset),
       .v = element_at(moments.second, offset),
       .size = piece.range.end - piece.range.begin,
       .lr = step.lr * piece.lr_multiplier * (is_new(parameter) ? options_.new_lr_multiplier : 1.0),
       .beta1 = options_.beta1,
       .beta2 = options_.beta2,
       .eps = options_.eps,
       .decay = decays(parameter.kind) ? decay : 0.0,
       .scale = step.scale,
       .bias1 = 1 - std::pow(options_.beta1, t),
       .bias2 = 1 - std::pow(options_.beta2, t),
       .row_decay = per_row.defined() ? per_row.data_ptr<float>() : nullptr,
       .row_size = per_row.defined() ? weights.size(1) : 1,
       .weights = element_of(weights),
       .moments = element_of(moments.first),
       .rounding = {options_.seed ^ kDomain, static_cast<uint32_t>(step.number),
                    static_cast<uint32_t>(index), static_cast<uint64_t>(offset)}},
      where_of(weights));
}

}  // namespace moue
