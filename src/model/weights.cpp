// The model's weights: resident, or fetched on demand under a ceiling.
#include "model/weights.h"

#include <fmt/ranges.h>

#include "model/torch.h"
#include "moue/error.h"
#include "moue/log.h"

namespace moue {
namespace {

bool is_stack(ParameterKind kind) {
  return kind == ParameterKind::Expert || kind == ParameterKind::ExpertBias;
}

// The gradient of one row of a stack: trained rows lie side by side.
at::Tensor grad_row(const Parameter& stack, int64_t row) {
  if (!stack.grad.defined()) return {};
  const int64_t size = stack.value.numel() / stack.value.size(0);
  int64_t at = row;
  for (const ElementRange& frozen : stack.frozen) {
    if (row * size >= frozen.end)
      at -= (frozen.end - frozen.begin) / size;
    else if (row * size >= frozen.begin)
      return {};
  }
  return stack.grad.select(0, at);
}

// What a predicate freezes of a parameter; `fault` says why it cannot be.
std::vector<ElementRange> frozen_ranges(const WeightPlan& plan,
                                        const std::function<bool(const std::string&)>& frozen,
                                        std::string& fault) {
  std::vector<ElementRange> ranges;
  if (!frozen || plan.numel() == 0) return ranges;
  const int64_t unit = is_stack(plan.kind) ? plan.numel() / plan.shape[0] : plan.numel();
  std::string held, free;
  for (const DiskTensor& disk : plan.disk) {
    const int64_t end = disk.offset + disk.slice.rows * disk.slice.columns;
    if (!frozen(disk.name)) {
      free = disk.name;
      continue;
    }
    held = disk.name;
    if (!ranges.empty() && ranges.back().end == disk.offset)
      ranges.back().end = end;
    else
      ranges.push_back({disk.offset, end});
  }
  for (const ElementRange& range : ranges) {
    if (range.begin % unit != 0 || range.end % unit != 0)
      fault = fmt::format("{} is frozen and {} is not", held, free);
  }
  return ranges;
}

constexpr int64_t kSmall = 1 << 20;  // elements: norms, routers and pool tensors stay resident

}  // namespace

const at::Tensor& weights_of(const Parameter& parameter) {
  return parameter.master.defined() ? parameter.master : parameter.value;
}

std::vector<ElementRange> trained(const Parameter& parameter) {
  std::vector<ElementRange> ranges;
  int64_t begin = 0;
  for (const ElementRange& frozen : parameter.frozen) {
    if (frozen.begin > begin) ranges.push_back({begin, frozen.begin});
    begin = frozen.end;
  }
  if (parameter.value.numel() > begin) ranges.push_back({begin, parameter.value.numel()});
  return ranges;
}

int64_t num_trained(const Parameter& parameter) {
  int64_t size = 0;
  for (const ElementRange& range : trained(parameter)) size += range.end - range.begin;
  return size;
}

std::vector<int64_t> trained_shape(const Parameter& parameter) {
  std::vector<int64_t> shape = parameter.value.sizes().vec();
  if (parameter.frozen.empty()) return shape;
  const int64_t size = num_trained(parameter);
  if (size == 0) return {0};
  shape[0] = size / (parameter.value.numel() / shape[0]);
  return shape;
}

Weights::Weights(const Checkpoint& checkpoint, WeightLayout layout, const ModelOptions& options)
    : checkpoint_(checkpoint), layout_(std::move(layout)), options_(options) {
  if (options_.train && options_.memory)
    fail("model", "training needs all weights in memory, a ceiling was given");
  parameters_.resize(layout_.plans.size());
  freeze();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!is_streamed(i)) make_resident(i);
  }
  options_.shared = nullptr;  // it may refer to what its caller holds
  const int64_t gate_up = layout_.find(Weight::ExpertGateUp),
                down = layout_.find(Weight::ExpertDown);
  if (is_streamed(gate_up) || is_streamed(down)) return;
  view_experts();
}

void Weights::view_experts() {
  experts_.clear();
  for (int64_t p = 0; p < layout_.plans[layout_.find(Weight::ExpertGateUp)].shape[0]; ++p)
    experts_.push_back(resident(p));
}

void Weights::freeze() {
  std::vector<std::string> faults;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    std::string fault;
    parameters_[i].frozen = frozen_ranges(layout_.plans[i], options_.frozen, fault);
    if (!fault.empty()) faults.push_back(std::move(fault));
  }
  if (!faults.empty())
    fail("train", "{}, but both are one tensor in memory; freeze all of it or none",
         fmt::join(faults, "; "));
}

// Views into the stacks.
Expert Weights::resident(int64_t physical) const {
  const auto select = [&](Weight weight, bool gradient) {
    const int64_t index = layout_.find(weight);
    if (index < 0) return at::Tensor();
    const Parameter& stack = parameters_[index];
    return gradient ? grad_row(stack, physical) : stack.value.detach().select(0, physical);
  };
  using enum Weight;
  return {select(ExpertGateUp, false),     select(ExpertDown, false),
          select(ExpertGateUpBias, false), select(ExpertDownBias, false),
          select(ExpertGateUp, true),      select(ExpertDown, true),
          select(ExpertGateUpBias, true),  select(ExpertDownBias, true)};
}

bool Weights::is_streamed(int64_t index) const {
  return options_.memory != 0 && layout_.plans[index].numel() > kSmall;
}

// The numbers of a slice in the element type of `out`, which is on the host.
void Weights::load(const Slice& slice, at::Tensor out) const {
  const bool is_plain = slice.packing == Packing::Plain && slice.is_contiguous();
  if (!is_plain) {
    at::Tensor values = at::empty({slice.rows * slice.columns}, at::kFloat);
    read_slice(checkpoint_, slice, {values.data_ptr<float>(), static_cast<size_t>(values.numel())});
    out.copy_(values);
    return;
  }
  const at::ScalarType stored = scalar_type(slice.tensor->dtype, slice.tensor->name);
  at::Tensor raw = stored == out.scalar_type() ? out : at::empty(out.sizes(), stored);
  checkpoint_.read(*slice.tensor, static_cast<uint64_t>(slice.offset) * raw.element_size(),
                   {static_cast<std::byte*>(raw.data_ptr()), raw.nbytes()});
  if (stored != out.scalar_type()) out.copy_(raw);
}

// Elements [begin, end) of a parameter, which must be bounds of its pieces.
at::Tensor Weights::load(const WeightPlan& plan, int64_t begin, int64_t end) const {
  const at::ScalarType dtype = plan.always_float32 ? at::kFloat : options_.dtype;
  at::Tensor result = at::empty({end - begin}, dtype);
  for (const DiskTensor& disk : plan.disk) {
    const int64_t size = disk.slice.rows * disk.slice.columns;
    if (disk.offset < begin || disk.offset + size > end) continue;
    load(disk.slice, result.narrow(0, disk.offset - begin, size));
  }
  return result.to(options_.device);
}

void Weights::make_resident(int64_t index) {
  const WeightPlan& plan = layout_.plans[index];
  Parameter& parameter = parameters_[index];
  parameter.name = plan.name;
  parameter.kind = plan.kind;
  parameter.moe_layer = plan.moe_layer;
  parameter.disk = plan.disk;
  parameter.value = load(plan, 0, plan.numel()).view(plan.shape);
  const at::Tensor twin =
      options_.shared ? options_.shared(parameter.name, parameter.value) : at::Tensor();
  if (twin.defined()) parameter.value = twin;
  if (options_.train) prepare_training(parameter, plan);
}

void Weights::prepare_training(Parameter& parameter, const WeightPlan& plan) {
  if (parameter.value.scalar_type() == at::kFloat) {
    parameter.master = parameter.value.detach();
  } else if (options_.masters && (num_trained(parameter) > 0 || parameter.value.numel() == 0)) {
    // A float32 source must not lose its last bits to the arithmetic dtype.
    const at::ScalarType dtype = std::exchange(options_.dtype, at::kFloat);
    parameter.master = load(plan, 0, plan.numel()).view(plan.shape);
    options_.dtype = dtype;
  }
  move(parameter, true);
}

void Weights::move(Parameter& parameter, bool moves) {
  moves = moves && (parameter.frozen.empty() || num_trained(parameter) > 0);
  if (moves == parameter.grad.defined()) return;
  parameter.grad = at::Tensor();
  if (moves) {
    parameter.grad = at::zeros(trained_shape(parameter),
                               parameter.value.options().dtype(at::kFloat).requires_grad(false));
  }
  // The expert block adds to its gradients itself.
  if (is_stack(parameter.kind)) return;
  parameter.value.set_requires_grad(moves);
  if (parameter.value.scalar_type() == at::kFloat) parameter.value.mutable_grad() = parameter.grad;
}

void Weights::set_moving(const std::function<bool(const Parameter&)>& moves) {
  for (Parameter& parameter : parameters_) move(parameter, moves(parameter));
  view_experts();
}

at::Tensor Weights::get(Weight weight, int64_t layer) {
  const int64_t index = layout_.find(weight, layer);
  if (index < 0) return {};
  if (!is_streamed(index)) return parameters_[index].value;
  const WeightPlan& plan = layout_.plans[index];
  return fetch(index, 0, plan.numel(), plan.shape);
}

at::Tensor Weights::grad(Weight weight, int64_t layer) {
  const int64_t index = layout_.find(weight, layer);
  return index < 0 ? at::Tensor() : parameters_[index].grad;
}

Expert Weights::expert(int64_t physical) {
  if (!experts_.empty()) return experts_[physical];
  const auto part = [&](Weight weight) {
    const int64_t index = layout_.find(weight);
    if (index < 0) return at::Tensor();
    if (!is_streamed(index)) return parameters_[index].value.select(0, physical);
    std::vector<int64_t> shape = layout_.plans[index].shape;
    shape.erase(shape.begin());
    const int64_t size = layout_.plans[index].numel() / layout_.plans[index].shape[0];
    return fetch(index, physical * size, (physical + 1) * size, shape);
  };
  Expert expert;
  expert.gate_up = part(Weight::ExpertGateUp);
  expert.down = part(Weight::ExpertDown);
  expert.gate_up_bias = part(Weight::ExpertGateUpBias);
  expert.down_bias = part(Weight::ExpertDownBias);
  return expert;
}

at::Tensor Weights::fetch(int64_t index, int64_t begin, int64_t end, std::vector<int64_t> shape) {
  // Pieces of one parameter have one size, so parameter and piece number name them.
  const uint64_t key =
      (static_cast<uint64_t>(index) << 32) | static_cast<uint64_t>(begin / (end - begin));
  if (const auto found = cached_.find(key); found != cached_.end()) {
    cache_.splice(cache_.begin(), cache_, found->second);
    return found->second->tensor;
  }
  const uint64_t bytes = static_cast<uint64_t>(end - begin) * c10::elementSize(options_.dtype);
  while (!cache_.empty() && cached_bytes_ + bytes > options_.memory) {
    cached_bytes_ -= cache_.back().tensor.nbytes();
    cached_.erase(cache_.back().key);
    cache_.pop_back();
  }
  if (bytes > options_.memory) {
    fail("model", "{} needs {} bytes at once, the ceiling is {}; raise --memory",
         layout_.plans[index].name, bytes, options_.memory);
  }
  cache_.push_front({key, load(layout_.plans[index], begin, end).view(shape)});
  cached_[key] = cache_.begin();
  cached_bytes_ += bytes;
  return cache_.front().tensor;
}

void Weights::zero_grad() {
  for (Parameter& parameter : parameters_) {
    if (parameter.grad.defined()) parameter.grad.zero_();
  }
}

void Weights::finish_backward() {
  for (Parameter& parameter : parameters_) {
    if (!parameter.grad.defined()) continue;
    at::Tensor& left = parameter.value.mutable_grad();
    if (!left.defined() || left.is_alias_of(parameter.grad)) continue;
    parameter.grad.add_(left);
    if (parameter.value.scalar_type() == at::kFloat)
      left = parameter.grad;
    else
      left = at::Tensor();
  }
}

void Weights::refresh_values() {
  for (Parameter& parameter : parameters_) {
    if (!parameter.master.defined() || parameter.master.is_alias_of(parameter.value)) continue;
    parameter.value.detach().copy_(parameter.master);
  }
}

}  // namespace moue
