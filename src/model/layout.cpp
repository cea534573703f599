// Which tensors on disk make up each parameter of the model.
#include "model/layout.h"

#include <numeric>
#include <optional>

#include "moue/error.h"

namespace moue {
namespace {

int64_t product(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

// A tensor's own shape where the slice is all of it, rows and columns otherwise.
std::vector<int64_t> shape_of(const Slice& slice) {
  const bool is_whole = slice.packing == Packing::Plain && slice.offset == 0 &&
                        slice.is_contiguous() &&
                        product(slice.tensor->shape) == slice.rows * slice.columns;
  if (is_whole) return slice.tensor->shape;
  if (slice.columns == 1) return {slice.rows};
  return {slice.rows, slice.columns};
}

class LayoutMaker {
 public:
  LayoutMaker(const Checkpoint& checkpoint, const Claims& claims, const ModelSpec& spec,
              const Pool& pool)
      : checkpoint_(checkpoint), claims_(claims), spec_(spec), pool_(pool) {}

  WeightLayout make(bool is_moue) {
    single(Weight::Embedding, -1, ParameterKind::Matrix, Role::Embedding);
    for (int64_t layer = 0; layer < spec_.layers; ++layer) base_layer(layer);
    experts();
    single(Weight::FinalNorm, -1, ParameterKind::Norm, Role::FinalNorm);
    single(Weight::FinalNormBias, -1, ParameterKind::Norm, Role::FinalNormBias);
    if (!spec_.tied_head) single(Weight::Head, -1, ParameterKind::Matrix, Role::OutputHead);
    single(Weight::HeadBias, -1, ParameterKind::Norm, Role::OutputHeadBias);
    if (is_moue) pool_weights();
    return std::move(layout_);
  }

 private:
  void add(Weight weight, int64_t layer, WeightPlan plan) {
    layout_.index[{weight, layer}] = static_cast<int64_t>(layout_.plans.size());
    layout_.plans.push_back(std::move(plan));
  }

  static void append(WeightPlan& plan, const Slice& slice) {
    const int64_t offset =
        plan.disk.empty() ? 0 : plan.disk.back().offset + product(plan.disk.back().shape);
    plan.disk.push_back({slice.tensor->name, offset, shape_of(slice), slice.tensor->dtype, slice});
  }

  void single(Weight weight, int64_t layer, ParameterKind kind, Role role) {
    const std::optional<Slice> slice = claims_.slice(role, layer);
    if (!slice) return;
    WeightPlan plan{.name = slice->tensor->name, .kind = kind, .shape = shape_of(*slice)};
    append(plan, *slice);
    add(weight, layer, std::move(plan));
  }

  Slice needed(Role role, int64_t layer, int64_t expert = -1) const {
    if (const std::optional<Slice> slice = claims_.slice(role, layer, expert)) return *slice;
    fail("model", "no tensor has the role {} in layer {}, expert {}", role_name(role), layer,
         expert);
  }

  // Rows of several roles one under the other.
  void fused(Weight weight, int64_t layer, ParameterKind kind, const std::vector<Role>& roles) {
    if (!claims_.slice(roles.front(), layer)) return;
    WeightPlan plan{.kind = kind};
    int64_t rows = 0;
    for (Role role : roles) {
      const Slice slice = needed(role, layer);
      append(plan, slice);
      rows += slice.rows;
    }
    plan.name = plan.disk.front().name + "+";
    plan.shape = plan.disk.front().shape;
    plan.shape[0] = rows;
    add(weight, layer, std::move(plan));
  }

  void base_layer(int64_t layer) {
    using enum Role;
    single(Weight::AttentionNorm, layer, ParameterKind::Norm, AttentionNorm);
    single(Weight::AttentionNormBias, layer, ParameterKind::Norm, AttentionNormBias);
    attention(layer);
    single(Weight::MlpNorm, layer, ParameterKind::Norm, MlpNorm);
    single(Weight::MlpNormBias, layer, ParameterKind::Norm, MlpNormBias);
    if (spec_.moe[layer]) {
      single(Weight::Router, layer, ParameterKind::Matrix, Router);
      single(Weight::HomeRouterBias, layer, ParameterKind::Norm, RouterBias);
      single(Weight::MlpBias, layer, ParameterKind::Norm, MlpBias);
      fused(Weight::SharedGateUp, layer, ParameterKind::Matrix, {SharedGate, SharedUp});
      single(Weight::SharedDown, layer, ParameterKind::Matrix, SharedDown);
      single(Weight::SharedMix, layer, ParameterKind::Matrix, SharedMix);
    } else {
      fused(Weight::DenseGateUp, layer, ParameterKind::Matrix, {DenseGate, DenseUp});
      single(Weight::DenseDown, layer, ParameterKind::Matrix, DenseDown);
    }
  }

  void attention(int64_t layer) {
    switch (spec_.attention.kind(layer)) {
      case AttentionKind::Grouped:
        return grouped_attention(layer);
      case AttentionKind::Latent:
        return latent_attention(layer);
      case AttentionKind::Linear:
        return linear_attention(layer);
      case AttentionKind::Experts:
        return attention_experts(layer);
    }
  }

  void grouped_attention(int64_t layer) {
    using enum Role;
    fused(Weight::Qkv, layer, ParameterKind::Matrix, {Query, Key, Value});
    fused(Weight::QkvBias, layer, ParameterKind::Norm, {QueryBias, KeyBias, ValueBias});
    attention_output(layer);
    single(Weight::QueryNorm, layer, ParameterKind::Norm, QueryNorm);
    single(Weight::KeyNorm, layer, ParameterKind::Norm, KeyNorm);
    single(Weight::Sinks, layer, ParameterKind::Norm, Sinks);
  }

  void latent_attention(int64_t layer) {
    using enum Role;
    single(Weight::QueryDown, layer, ParameterKind::Matrix, QueryDown);
    single(Weight::QueryDownBias, layer, ParameterKind::Norm, QueryDownBias);
    single(Weight::QueryDownNorm, layer, ParameterKind::Norm, QueryDownNorm);
    const bool is_narrow = spec_.attention.latent.query_rank > 0;
    single(Weight::QueryUp, layer, ParameterKind::Matrix, is_narrow ? QueryUp : Query);
    single(Weight::KeyValueDown, layer, ParameterKind::Matrix, KeyValueDown);
    single(Weight::KeyValueDownBias, layer, ParameterKind::Norm, KeyValueDownBias);
    single(Weight::KeyValueDownNorm, layer, ParameterKind::Norm, KeyValueDownNorm);
    single(Weight::KeyValueUp, layer, ParameterKind::Matrix, KeyValueUp);
    attention_output(layer);
  }

  void attention_output(int64_t layer) {
    single(Weight::AttentionOutput, layer, ParameterKind::Matrix, Role::AttentionOutput);
    single(Weight::AttentionOutputBias, layer, ParameterKind::Norm, Role::AttentionOutputBias);
  }

  void linear_attention(int64_t layer) {
    using enum Role;
    single(Weight::LinearInput, layer, ParameterKind::Matrix, LinearInput);
    single(Weight::LinearNorm, layer, ParameterKind::Norm, LinearNorm);
    single(Weight::LinearGate, layer, ParameterKind::Matrix, LinearGate);
    single(Weight::LinearOutput, layer, ParameterKind::Matrix, LinearOutput);
  }

  void attention_experts(int64_t layer) {
    using enum Role;
    single(Weight::AttentionRouter, layer, ParameterKind::Matrix, AttentionRouter);
    single(Weight::AttentionExpertInput, layer, ParameterKind::Matrix, AttentionExpertInput);
    single(Weight::AttentionExpertOutput, layer, ParameterKind::Matrix, AttentionExpertOutput);
    single(Weight::AttentionExpertsBias, layer, ParameterKind::Norm, AttentionExpertsBias);
    fused(Weight::KeyValue, layer, ParameterKind::Matrix, {Key, Value});
  }

  // In the source, or among the new experts' own tensors.
  Slice of_expert(Role role, int64_t physical) const {
    const Home& home = pool_.home[physical];
    if (physical < pool_.num_source())
      return needed(role, pool_.moe_layers[home.layer], home.expert);
    for (const ExpertTensor& part : expert_tensors(physical - pool_.num_source(), spec_)) {
      if (part.role == role) return whole_slice(checkpoint_.at(part.name));
    }
    fail("model", "new expert {} has no tensor of role {}", physical, role_name(role));
  }

  // All experts' tensors of some roles, one expert after the other.
  void expert_stack(Weight weight, const std::string& name, ParameterKind kind,
                    const std::vector<int64_t>& shape, const std::vector<Role>& roles) {
    WeightPlan plan{.name = name, .kind = kind, .shape = {pool_.num_physical()}};
    plan.shape.insert(plan.shape.end(), shape.begin(), shape.end());
    for (int64_t physical = 0; physical < pool_.num_physical(); ++physical) {
      for (Role role : roles) append(plan, of_expert(role, physical));
    }
    add(weight, -1, std::move(plan));
  }

  void experts() {
    using enum Role;
    const int64_t F = spec_.expert_width, D = spec_.width;
    expert_stack(Weight::ExpertGateUp, "experts.gate_up", ParameterKind::Expert, {2 * F, D},
                 {ExpertGate, ExpertUp});
    expert_stack(Weight::ExpertDown, "experts.down", ParameterKind::Expert, {D, F}, {ExpertDown});
    if (!spec_.expert_bias) return;
    expert_stack(Weight::ExpertGateUpBias, "experts.gate_up_bias", ParameterKind::ExpertBias,
                 {2 * F}, {ExpertGateBias, ExpertUpBias});
    expert_stack(Weight::ExpertDownBias, "experts.down_bias", ParameterKind::ExpertBias, {D},
                 {ExpertDownBias});
  }

  void pool_weight(Weight weight, int64_t layer, ParameterKind kind, const std::string& name) {
    const TensorInfo& tensor = checkpoint_.at(name);
    WeightPlan plan{.name = name,
                    .kind = kind,
                    .moe_layer = layer,
                    .always_float32 = true,
                    .shape = tensor.shape};
    append(plan, whole_slice(tensor));
    add(weight, layer, std::move(plan));
  }

  void pool_weights() {
    for (int64_t layer = 0; layer < pool_.num_moe_layers(); ++layer) {
      pool_weight(Weight::ForeignRows, layer, ParameterKind::ForeignRow,
                  names::router_weight(layer));
      pool_weight(Weight::RouterBias, layer, ParameterKind::RouterBias, names::router_bias(layer));
      pool_weight(Weight::RouterScale, layer, ParameterKind::RouterScale,
                  names::router_scale(layer));
      pool_weight(Weight::Gain, layer, ParameterKind::Gain, names::trajectory_gain(layer));
    }
    pool_weight(Weight::Key, -1, ParameterKind::Trajectory, names::kKey);
    pool_weight(Weight::Query, -1, ParameterKind::Trajectory, names::kQuery);
    pool_weight(Weight::Decay, -1, ParameterKind::Trajectory, names::kDecay);
  }

  const Checkpoint& checkpoint_;
  const Claims& claims_;
  const ModelSpec& spec_;
  const Pool& pool_;
  WeightLayout layout_;
};

}  // namespace

int64_t WeightPlan::numel() const { return product(shape); }

int64_t WeightLayout::find(Weight weight, int64_t layer) const {
  const auto found = index.find({weight, layer});
  return found == index.end() ? -1 : found->second;
}

WeightLayout make_layout(const Checkpoint& checkpoint, const Claims& claims, const ModelSpec& spec,
                         const Pool& pool, bool is_moue) {
  return LayoutMaker(checkpoint, claims, spec, pool).make(is_moue);
}

}  // namespace moue
