// Writes steps while the run goes on.
#include "train/saver.h"

#include <ATen/Parallel.h>
#include <omp.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cassert>
#include <chrono>

namespace moue {
namespace {

// The run's threads wait for each other in every kernel: one that must share its core holds up all.
void give_way() {
  constexpr int kNice = 10;
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice);
  at::internal::lazy_init_num_threads();  // which would else set LibTorch's number again
  omp_set_num_threads(1);                 // of this thread alone
}

}  // namespace

void Saver::start(std::function<std::filesystem::path()> write) {
  assert(!writing_.valid());
  writing_ = std::async(std::launch::async, [write = std::move(write)] {
    give_way();
    return write();
  });
}

void Saver::wait() {
  if (writing_.valid()) saved_ = writing_.get();
}

void Saver::check() {
  if (writing_.valid() && writing_.wait_for(std::chrono::seconds(0)) == std::future_status::ready)
    wait();
}

}  // namespace moue
