// Matrix products as the model's parts ask for them.
#pragma once

#include <ATen/core/Tensor.h>

namespace moue {

/// out [m, n] = a [m, k] b [k, n], or is increased by it; one dtype and device. Float32 on a CPU
/// with AVX-512 goes through kernels::product, an element's bits then do not depend on m, n or the
/// number of threads; all else through at::mm.
void multiply(at::Tensor out, const at::Tensor& a, const at::Tensor& b, bool add = false);

/// grad += left^T right, in float32 whatever the operands; nothing where grad is undefined.
void add_product(at::Tensor grad, const at::Tensor& left, const at::Tensor& right);

/// at::linear, differentiable: x [T, D], weight [V, D], bias [V] or undefined -> [T, V].
at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

}  // namespace moue
