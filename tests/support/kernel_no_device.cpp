// In place of kernel_device.cpp in a build without CUDA.
#include <stdexcept>

#include "support/kernel_device.h"

namespace moue::test::device {
namespace {

[[noreturn]] void none() { throw std::logic_error("built without CUDA: ask state() first"); }

}  // namespace

State state() { return State::NotBuilt; }
std::string name() { return "built without CUDA"; }
void* allocate(size_t) { none(); }
void release(void*) {}
void to_device(void*, const void*, size_t) { none(); }
void to_host(void*, const void*, size_t) { none(); }
void copy(void*, const void*, size_t) { none(); }
double seconds(int, void (*)(void*), void*) { none(); }

}  // namespace moue::test::device
