// The thread pool behind the CPU kernels.
#include "kernels/element.h"

#include "kernels/rows.h"

namespace moue::kernels {
namespace {

void serial(int64_t size, int64_t, void (*body)(void*, int64_t, int64_t), void* context) {
  if (size > 0) body(context, 0, size);
}

ParallelFor current = serial;

}  // namespace

void set_parallel_for(ParallelFor parallel_for) { current = parallel_for ? parallel_for : serial; }

void parallel_for(int64_t size, int64_t grain, void (*body)(void*, int64_t, int64_t),
                  void* context) {
  current(size, grain, body, context);
}

}  // namespace moue::kernels
