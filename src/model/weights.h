// The model's weights: resident, or fetched on demand under a ceiling.
#pragma once

#include <ATen/core/Tensor.h>

#include <list>
#include <unordered_map>
#include <vector>

#include "model/layout.h"

namespace moue {

/// One expert: views into the pool's stacks, or tensors fetched for the moment.
struct Expert {
  at::Tensor gate_up;       ///< [2F, D]
  at::Tensor down;          ///< [D, F]
  at::Tensor gate_up_bias;  ///< [2F]; undefined where experts have none
  at::Tensor down_bias;     ///< [D]
  at::Tensor gate_up_grad;  ///< float32, these undefined where nothing is trained
  at::Tensor down_grad;
  at::Tensor gate_up_bias_grad;
  at::Tensor down_bias_grad;
};

class Weights {
 public:
  Weights(const Checkpoint& checkpoint, WeightLayout layout, const ModelOptions& options);

  /// The parameter's value; undefined where the model has no such weight.
  at::Tensor get(Weight weight, int64_t layer = -1);
  /// Its float32 gradient; undefined where nothing is trained.
  at::Tensor grad(Weight weight, int64_t layer = -1);
  Expert expert(int64_t physical);
  bool has_experts() const { return !experts_.empty(); }  ///< resident, every one

  std::vector<Parameter>& parameters() { return parameters_; }
  void zero_grad();
  void set_moving(const std::function<bool(const Parameter&)>& moves);
  void finish_backward();
  void refresh_values();

 private:
  void load(const Slice& slice, at::Tensor out) const;
  at::Tensor load(const WeightPlan& plan, int64_t begin, int64_t end) const;
  void freeze();
  void make_resident(int64_t index);
  Expert resident(int64_t physical) const;
  void view_experts();
  void prepare_training(Parameter& parameter, const WeightPlan& plan);
  void move(Parameter& parameter, bool moves);
  at::Tensor fetch(int64_t index, int64_t begin, int64_t end, std::vector<int64_t> shape);
  bool is_streamed(int64_t index) const;

  Checkpoint checkpoint_;
  WeightLayout layout_;
  ModelOptions options_;
  std::vector<Parameter> parameters_;  ///< as layout_.plans; value undefined where streamed
  std::vector<Expert> experts_;        ///< resident views

  // Most recently used first; the oldest go when the ceiling is reached.
  struct Fetched {
    uint64_t key;
    at::Tensor tensor;
  };
  std::list<Fetched> cache_;
  std::unordered_map<uint64_t, std::list<Fetched>::iterator> cached_;
  uint64_t cached_bytes_ = 0;
};

}  // namespace moue
