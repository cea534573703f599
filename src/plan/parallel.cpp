// The same work on many items, spread over the machine's cores.
#include "plan/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace moue {

void in_parallel(int64_t count, const std::function<void(int64_t)>& work,
                 const std::function<void(int64_t)>& done) {
  std::atomic<int64_t> next = 0;
  int64_t finished = 0;
  std::exception_ptr fault;
  std::mutex guard;
  const auto run = [&] {
    for (int64_t item = next++; item < count; item = next++) {
      try {
        work(item);
        const std::scoped_lock lock(guard);
        done(++finished);
      } catch (...) {
        const std::scoped_lock lock(guard);
        if (!fault) fault = std::current_exception();
        next = count;
      }
    }
  };
  const int64_t cores = std::max<int64_t>(1, std::thread::hardware_concurrency());
  std::vector<std::jthread> threads;
  for (int64_t i = 1; i < std::min(cores, count); ++i) threads.emplace_back(run);
  run();
  threads.clear();  // joins
  if (fault) std::rethrow_exception(fault);
}

}  // namespace moue
