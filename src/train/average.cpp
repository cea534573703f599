// Averaged weights.
#include "train/average.h"

#include <ATen/ATen.h>

namespace moue {

Average::Average(std::vector<Parameter>& parameters, double decay)
    : parameters_(parameters), decay_(decay) {
  for (const Parameter& parameter : parameters_) {
    tensors_.push_back(num_trained(parameter) > 0 ? parameter.master.detach().clone()
                                                  : at::Tensor());
  }
}

void Average::update() {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (tensors_[i].defined()) tensors_[i].lerp_(parameters_[i].master.detach(), 1 - decay_);
  }
}

void Average::swap() {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (!tensors_[i].defined()) continue;
    at::Tensor master = parameters_[i].master.detach();
    const at::Tensor kept = master.clone();
    master.copy_(tensors_[i]);
    tensors_[i].copy_(kept);
  }
}

}  // namespace moue
