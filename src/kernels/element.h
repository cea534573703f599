// Element types, where a kernel runs, and how rows are spread over threads.
#pragma once

#include <cstdint>

namespace moue::kernels {

enum class Element : uint8_t { Float32, BFloat16 };

/// On the CPU, or on a CUDA stream (a cudaStream_t; null is the default stream).
struct Where {
  bool cuda = false;
  void* stream = nullptr;
};

/// Calls body(context, begin, end) over [0, size) in pieces of at least `grain`, perhaps on several
/// threads.
using ParallelFor = void (*)(int64_t size, int64_t grain, void (*body)(void*, int64_t, int64_t),
                             void* context);
/// Replaces the serial default by a thread pool; the model hands in LibTorch's.
void set_parallel_for(ParallelFor parallel_for);

}  // namespace moue::kernels
