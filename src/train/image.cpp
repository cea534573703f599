// What of a run goes into a step: its own tensors, or copies that the steps to come leave alone.
#include <ATen/ATen.h>

#include "train/checkpoint.h"

namespace moue {
namespace {

// From a GPU the copy may still be under way: copied() waits at its end.
at::Tensor host_copy(const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  const bool far = tensor.is_cuda();
  at::Tensor copy =
      at::empty(tensor.sizes(), at::TensorOptions(tensor.scalar_type()).pinned_memory(far));
  return copy.copy_(tensor.detach(), far);
}

}  // namespace

StepImage image_of(Model& model, const Optimizer& optimizer, const Average* average,
                   const TrainState& state, const Pool& pool) {
  StepImage image{{},  optimizer.moments(), {}, model.visibility(), model.pool_bias(), {}, state,
                  pool};
  for (const Parameter& parameter : model.parameters())
    image.weights.push_back(weights_of(parameter).detach());
  if (average != nullptr) image.averages = average->tensors();
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer)
    image.corrections.push_back(model.correction(layer));
  return image;
}

StepImage copied(const StepImage& image, const std::vector<Parameter>& parameters) {
  StepImage copy = image;
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (num_trained(parameters[i]) == 0) continue;
    copy.weights[i] = host_copy(image.weights[i]);
    copy.moments[i].first = host_copy(image.moments[i].first);
    copy.moments[i].second = host_copy(image.moments[i].second);
    if (!image.averages.empty()) copy.averages[i] = host_copy(image.averages[i]);
  }
  for (at::Tensor& correction : copy.corrections) correction = host_copy(correction);
  copy.pool_bias =
      image.pool_bias.to(at::kCPU, image.pool_bias.scalar_type(), false, true);  // waits
  return copy;
}

}  // namespace moue
