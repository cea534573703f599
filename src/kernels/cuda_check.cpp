// A CUDA status as a message for the user.
#include "kernels/cuda_check.h"

#include "moue/error.h"

namespace moue::kernels {
namespace {

const char* advice(cudaError_t status) {
  switch (status) {
    case cudaErrorMemoryAllocation:
      return "choose a smaller micro_batch or length";
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
      return "see nvidia-smi, or choose device = \"cpu\"";
    case cudaErrorNoKernelImageForDevice:
      return "the kernels are built for compute capability 8.0 and newer; choose device = \"cpu\"";
    default:
      return "CUDA_LAUNCH_BLOCKING=1 shows which launch it was";
  }
}

}  // namespace

void cuda_check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // or a refused allocation would show again at the next launch
  fail("kernels", "{}: {} ({}); {}", what, cudaGetErrorString(status), cudaGetErrorName(status),
       advice(status));
}

}  // namespace moue::kernels
