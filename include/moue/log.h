// Where the library's lines and progress go: it never prints, the program decides.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <string>
#include <string_view>

namespace moue {

/// How far a long piece of work has come. `done` and `total` count `unit`s ("B", "tok", "steps").
struct Progress {
  std::string_view stage;
  double done = 0;
  double total = 0;
  std::string_view unit;
  std::string note;  ///< what else the line shows: "loss 2.3141 lr 9.8e-05"
};

/// Receives every line and every progress event; an empty function drops them.
struct LogSink {
  std::function<void(std::string_view line)> line;
  std::function<void(const Progress&)> progress;
};

/// Replaces the process-wide sink and returns the old one. Not to be called while work runs.
LogSink set_log_sink(LogSink sink);

void log_text(std::string_view stage, std::string_view text);
void log_progress(const Progress& progress);

/// One line "[stage] text" to the sink.
template <class... Args>
void log_line(std::string_view stage, fmt::format_string<Args...> text, Args&&... args) {
  log_text(stage, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace moue
