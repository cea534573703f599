// Memory of the CUDA device for kernel tests and the bench, without CUDA's headers.
#pragma once

#include <cstddef>
#include <string>

namespace moue::test::device {

enum class State { NotBuilt, NoDevice, Ready };

State state();
/// What it is, or why there is none.
std::string name();
void* allocate(size_t bytes);
void release(void* memory);
void to_device(void* to, const void* from, size_t bytes);
/// Waits for the kernels before it.
void to_host(void* to, const void* from, size_t bytes);

/// Within the device; nothing waits.
void copy(void* to, const void* from, size_t bytes);

/// Seconds of `launch` on the default stream by CUDA events, the mean of `repeats`.
double seconds(int repeats, void (*launch)(void*), void* context);
}  // namespace moue::test::device
