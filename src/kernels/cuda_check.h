// The one helper of the CUDA sources.
#pragma once

#include <cuda_runtime.h>

namespace moue::kernels {

/// Throws moue::Error naming `what` unless the status is cudaSuccess.
void cuda_check(cudaError_t status, const char* what);

}  // namespace moue::kernels
