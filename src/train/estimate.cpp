// What a run takes, from config and headers alone.
#include "train/estimate.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/tree.h"
#include "model/layout.h"
#include "tokens/tokens.h"
#include "train/activations.h"
#include "train/data.h"
#include "train/groups.h"

namespace moue {
namespace {

constexpr double kFloat = 4;
// Of what comes and goes: holes between what stays, blocks kept for later. -1 to 26 % were seen on
// tiny-mixtral.
constexpr double kAllocator = 0.12;
// LibTorch and its thread pools; on a GPU its context and libraries.
constexpr double kLibraryCpu = 0.40e9, kLibraryCuda = 1.2e9;
// What oneDNN's bfloat16 products hold on a CPU, whatever the batch.
constexpr double kNarrowCpu = 0.35e9;

bool is_stack(const WeightPlan& plan) {
  return plan.kind == ParameterKind::Expert || plan.kind == ParameterKind::ExpertBias;
}

/// Elements of all parameters by what is held of them.
struct Elements {
  double narrow = 0, wide = 0;  ///< values: in the arithmetic's type, always float32
  double masters = 0;           ///< beside values that hold less
  double trained = 0;
  double averaged = 0;
  double left = 0;  ///< gradients that autograd leaves beside the float32 ones
  double trained_experts = 0, experts = 0;
  double largest = 0;  ///< bytes of a parameter as it is loaded
  double disk_masters = 0, unpacked = 0;
  double still = 0;  ///< bytes of values of which nothing is trained
  bool head = false;
};

Elements elements_of(const WeightLayout& layout, const ModelSpec& spec, const TrainOptions& o) {
  Elements n;
  const bool narrow = o.dtype == "bfloat16";
  const int64_t head = layout.find(spec.tied_head ? Weight::Embedding : Weight::Head);
  for (size_t i = 0; i < layout.plans.size(); ++i) {
    const WeightPlan& plan = layout.plans[i];
    const auto size = static_cast<double>(plan.numel());
    double trained = 0;
    bool coarse = false;  // on disk, beside what is trained
    for (const DiskTensor& disk : plan.disk) {
      const auto piece = static_cast<double>(disk.slice.rows * disk.slice.columns);
      if (!is_frozen(o, disk.name)) trained += piece;
      const bool kept = o.master == "none" && disk.dtype == Dtype::BF16;
      coarse |= disk.dtype != Dtype::F32 && !kept;
      if (disk.slice.packing != Packing::Plain) n.unpacked += piece;
    }
    (plan.always_float32 ? n.wide : n.narrow) += size;
    const bool mastered = trained > 0 || !narrow || plan.always_float32;
    n.largest = std::max(n.largest, size * (mastered ? kFloat : 2));
    if (is_stack(plan)) n.experts += size, n.trained_experts += trained;
    if (trained == 0) n.still += size * (narrow && !plan.always_float32 ? 2 : kFloat);
    if (trained == 0) continue;
    n.trained += trained;
    n.averaged += size;
    if (narrow && !plan.always_float32 && o.master != "none") n.masters += size;
    if (narrow && !plan.always_float32 && !is_stack(plan)) n.left += size;
    if (coarse) n.disk_masters += size;
    n.head |= static_cast<int64_t>(i) == head;
  }
  return n;
}

// int64 windows, where the file is there to be asked.
double held_out_tokens(const TrainOptions& o) {
  if (o.held_out.empty() || !stands(o.held_out)) return 0;
  const TokenFile tokens(o.held_out, o.token_type);
  return static_cast<double>(tokens.num_windows(o.length) * (o.length + 1));
}

// What a teacher holds beside the model; frozen tensors that it has alike are held once.
double teacher_bytes(const TrainOptions& o, double own, double still) {
  if (o.distill == 0) return 0;
  if (o.distill_from.empty()) return own - still;
  double elements = 0;
  for (const TensorInfo& tensor : open_checkpoint(o.distill_from).tensors())
    elements += static_cast<double>(tensor.bytes) * 8 / dtype_bits(tensor.dtype);
  return elements * (o.dtype == "bfloat16" ? 2 : kFloat);
}

double share(double part, double whole) { return whole > 0 ? part / whole : 0; }

}  // namespace

double Estimate::peak() const {
  double sum = 0;
  for (const MemoryPart& part : memory) sum += part.bytes;
  return sum;
}

Estimator::Estimator(const Checkpoint& model)
    : model_(model),
      family_(family_of(model.config())),
      spec_(family_.spec(model.config())),
      is_moue_(is_moue(model.config())),
      pool_(is_moue_ ? read_pool(model.config()) : vanilla_pool(model.config(), spec_)),
      claims_(claim(model, family_)) {}

Estimate Estimator::estimate(const TrainOptions& o) const {
  const WeightLayout layout = make_layout(model_, claims_, spec_, pool_, is_moue_);
  const Elements n = elements_of(layout, spec_, o);
  const bool cuda = o.device == "cuda", narrow = o.dtype == "bfloat16";
  const double e = narrow ? 2 : kFloat;
  const PassShape shape{o.micro_batch, o.length, e, o.recompute, o.z_loss > 0};
  const PassBytes pass = pass_bytes(spec_, pool_, is_moue_, shape, n.head);
  Estimate result;
  const double values = n.narrow * e + n.wide * kFloat;
  const double moments = n.trained * 2 * (o.moments == "bfloat16" ? 2 : kFloat);
  const double average = o.ema > 0 ? n.averaged * kFloat : 0;
  const double moving = n.masters > 0 ? n.averaged * kFloat : values - n.still;
  const bool copies = o.save_mode == "async" && o.save_every > 0;
  const double copy = copies ? moving + moments + average : 0;
  const double held_out = held_out_tokens(o);
  result.memory = {
      {"weights", "weights", values, "dtype"},
      {"masters", "float32 master weights", n.masters * kFloat, "master, freeze"},
      {"gradients", "gradients", n.trained * kFloat + n.left * e, "freeze"},
      {"moments", "two moments", moments, "moments, freeze"},
      {"average", "averaged weights", average, "ema"},
      {"teacher", "weights of the teacher", teacher_bytes(o, values, n.still), "distill, freeze"},
      {"copy", "copy while a checkpoint is written", cuda ? 0 : copy, "save_mode, save_every"},
      {"activations", o.recompute ? "activations, recomputed" : "activations", pass.kept,
       o.recompute ? "micro_batch, length" : "recompute, micro_batch, length"},
      {"backward", "work of one block's way back", pass.work, "micro_batch, length"},
      {"logits", "logits of one chunk, gradient of the head", pass.logits, "freeze"},
      {"allocator", "what the allocator holds besides", kAllocator * (pass.kept + pass.work),
       "micro_batch, length"},
      {"held_out", "held-out tokens", cuda ? 0 : held_out * 8, "held_out"},
      {"library", "LibTorch itself", cuda ? kLibraryCuda : kLibraryCpu + (narrow ? kNarrowCpu : 0),
       ""},
  };
  const TokenWork work = token_work(spec_, pool_, is_moue_, o.length);
  const double others = work.weights - work.experts;
  const double weights =
      work.experts * share(n.trained_experts, n.experts) +
      others * share(n.trained - n.trained_experts, n.narrow + n.wide - n.experts);
  const double again = (o.recompute ? work.forward : 0) + (o.distill > 0 ? work.forward : 0);
  const double per_token = work.forward + work.inputs + weights + again;
  result.step_work = per_token * static_cast<double>(o.batch) * static_cast<double>(o.length);
  result.held_out_work = work.forward * held_out;
  result.checkpoint = static_cast<double>(model_.data_bytes()) + moments +
                      n.disk_masters * (o.master == "none" ? 2 : kFloat) + n.unpacked * 2 + average;
  result.parameters = static_cast<int64_t>(n.narrow + n.wide);
  result.trained = static_cast<int64_t>(n.trained);
  result.largest = std::max(n.largest, copy);
  return result;
}

std::string Estimator::experts_pattern() const {
  const WeightLayout layout = make_layout(model_, claims_, spec_, pool_, is_moue_);
  for (const char* pattern :
       {"*.experts.*", "*.block_sparse_moe.*_linear.weight", "*.mlp.*_linear.weight"}) {
    const bool exact = std::all_of(layout.plans.begin(), layout.plans.end(), [&](const auto& plan) {
      return std::all_of(plan.disk.begin(), plan.disk.end(), [&](const DiskTensor& disk) {
        return matches(pattern, disk.name) == is_stack(plan);
      });
    });
    if (exact) return pattern;
  }
  return "";
}

}  // namespace moue
