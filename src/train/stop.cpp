// SIGINT and SIGTERM as a wish to stop.
#include "train/stop.h"

#include <array>
#include <csignal>

namespace moue {
namespace {

constexpr std::array kSignals = {SIGINT, SIGTERM};
volatile std::sig_atomic_t asked_to_stop = 0;
std::array<struct sigaction, kSignals.size()> previous;

}  // namespace

StopSignals::StopSignals() {
  asked_to_stop = 0;
  struct sigaction action = {};
  action.sa_handler = [](int) { asked_to_stop = 1; };
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &action, &previous[i]);
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &previous[i], nullptr);
}

bool StopSignals::asked() const { return asked_to_stop != 0; }

}  // namespace moue
