// SIGINT and SIGTERM as a wish to stop: the piece in progress ends, the state is kept.
#pragma once

#include <string_view>

namespace moue {

/// Catches both signals while it lives; a second one of either has its usual effect. One at a time.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  bool asked() const;
};

/// Throws Interrupted "[stage] stopped by a signal" where one came while a StopSignals lives. For
/// places between two pieces of work; safe from several threads.
void stop_if_asked(std::string_view stage);

}  // namespace moue
