// The process-wide sink behind log.h: one line or progress event at a time, whichever thread it
// comes from.
#include "moue/log.h"

#include <mutex>

namespace moue {
namespace {

std::mutex& sink_mutex() {
  static std::mutex mutex;
  return mutex;
}

LogSink& sink() {
  static LogSink current;
  return current;
}

}  // namespace

LogSink set_log_sink(LogSink replacement) {
  std::lock_guard lock(sink_mutex());
  std::swap(sink(), replacement);
  return replacement;
}

void log_text(std::string_view stage, std::string_view text) {
  std::lock_guard lock(sink_mutex());
  if (sink().line) sink().line(fmt::format("[{}] {}", stage, text));
}

void log_progress(const Progress& progress) {
  std::lock_guard lock(sink_mutex());
  if (sink().progress) sink().progress(progress);
}

}  // namespace moue
