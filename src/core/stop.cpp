// SIGINT and SIGTERM as a wish to stop.
#include "core/stop.h"

#include "moue/error.h"

#include <array>
#include <atomic>
#include <csignal>

namespace moue {
namespace {

constexpr std::array kSignals = {SIGINT, SIGTERM};
std::atomic<bool> asked_to_stop = false;
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler writes it");
std::array<struct sigaction, kSignals.size()> previous;

void note_wish(int) {
  asked_to_stop = true;
  for (const int number : kSignals) std::signal(number, SIG_DFL);
}

}  // namespace

StopSignals::StopSignals() {
  asked_to_stop = false;
  struct sigaction action = {};
  action.sa_handler = note_wish;
  action.sa_flags = SA_RESTART;
  for (size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], nullptr, &previous[i]);
    // What was started with signals ignored, as by nohup, stays so.
    if (previous[i].sa_handler != SIG_IGN) sigaction(kSignals[i], &action, nullptr);
  }
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &previous[i], nullptr);
  asked_to_stop = false;
}

bool StopSignals::asked() const { return asked_to_stop; }

void stop_if_asked(std::string_view stage) {
  if (asked_to_stop) throw Interrupted(fmt::format("[{}] stopped by a signal", stage));
}

}  // namespace moue
