// Words of the command line as LibTorch's types.
#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <thread>

#include "moue/error.h"
#include "moue/model.h"

namespace moue {

at::ScalarType scalar_type(const std::string& dtype) {
  if (dtype == "float32") return at::kFloat;
  if (dtype == "bfloat16") return at::kBFloat16;
  fail("model", "dtype is '{}', wanted float32 or bfloat16", dtype);
}

at::ScalarType scalar_type(Dtype dtype, const std::string& tensor) {
  switch (dtype) {
    case Dtype::F64:
      return at::kDouble;
    case Dtype::F32:
      return at::kFloat;
    case Dtype::F16:
      return at::kHalf;
    case Dtype::BF16:
      return at::kBFloat16;
    default:
      fail("model", "{} is stored as {}, wanted F64, F32, F16 or BF16 to compute with", tensor,
           dtype_name(dtype));
  }
}

at::Device device_of(const std::string& device) {
  if (device == "cpu") return at::kCPU;
  if (device != "cuda") fail("model", "device is '{}', wanted cpu or cuda", device);
  if (!at::globalContext().hasCUDA())
    fail("model", "device is 'cuda', but LibTorch sees no GPU; use --device cpu");
  return at::Device(at::kCUDA, 0);
}

void set_threads(int64_t threads) {
  const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
  at::set_num_threads(static_cast<int>(threads > 0 ? threads : cores));
}

}  // namespace moue
