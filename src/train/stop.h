// SIGINT and SIGTERM as a wish to stop: the step in progress ends, the state is saved.
#pragma once

namespace moue {

/// Catches both signals while it lives; a second one of them has its usual effect.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  bool asked() const;
};

}  // namespace moue
