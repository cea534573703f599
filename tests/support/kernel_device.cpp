// Memory and time of a CUDA device.
#include "support/kernel_device.h"

#include <cuda_runtime.h>

#include "kernels/cuda_check.h"

namespace moue::test::device {

using kernels::cuda_check;

State state() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0 ? State::Ready
                                                                    : State::NoDevice;
}

std::string name() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess) return cudaGetErrorString(status);
  if (devices == 0) return "no CUDA device";
  cudaDeviceProp properties;
  cuda_check(cudaGetDeviceProperties(&properties, 0), "device properties");
  return properties.name;
}

void* allocate(size_t bytes) {
  void* memory = nullptr;
  cuda_check(cudaMalloc(&memory, bytes), "test memory");
  return memory;
}

void release(void* memory) { cudaFree(memory); }

void to_device(void* to, const void* from, size_t bytes) {
  cuda_check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "copy to the device");
}

void to_host(void* to, const void* from, size_t bytes) {
  cuda_check(cudaDeviceSynchronize(), "kernel");
  cuda_check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "copy from the device");
}

void copy(void* to, const void* from, size_t bytes) {
  cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice), "device copy");
}

double seconds(int repeats, void (*launch)(void*), void* context) {
  cudaEvent_t begin, end;
  cuda_check(cudaEventCreate(&begin), "event");
  cuda_check(cudaEventCreate(&end), "event");
  cuda_check(cudaEventRecord(begin), "event");
  for (int i = 0; i < repeats; ++i) launch(context);
  cuda_check(cudaEventRecord(end), "event");
  cuda_check(cudaEventSynchronize(end), "timed kernel");
  float milliseconds = 0;
  cuda_check(cudaEventElapsedTime(&milliseconds, begin, end), "event");
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return milliseconds * 1e-3 / repeats;
}

}  // namespace moue::test::device
