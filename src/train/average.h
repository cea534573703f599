// Averaged weights: an exponential mean of the masters, kept beside the run.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "moue/model.h"

namespace moue {

class Average {
 public:
  /// Starts as the masters of `parameters`, which must outlive it; nothing for what is frozen.
  Average(std::vector<Parameter>& parameters, double decay);

  /// average = decay * average + (1 - decay) * master
  void update();
  /// Exchanges averages and masters; a second call brings them back, bit for bit.
  void swap();

  /// float32, in the order of the parameters; undefined where all is frozen.
  std::vector<at::Tensor>& tensors() { return tensors_; }
  const std::vector<at::Tensor>& tensors() const { return tensors_; }

 private:
  std::vector<Parameter>& parameters_;
  double decay_;
  std::vector<at::Tensor> tensors_;
};

}  // namespace moue
