// Progress with rate and time left, at most ten times a second on a terminal, every ten seconds
// elsewhere.
#include "cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "moue/report.h"

namespace moue {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point then) {
  return std::chrono::duration<double>(Clock::now() - then).count();
}

std::string amount_text(double amount, std::string_view unit) {
  if (unit == "B") return bytes_text(static_cast<uint64_t>(amount < 0 ? 0 : amount));
  return fmt::format("{} {}", count_text(amount), unit);
}

/// What the screen shows of the work in progress. log.h calls it from one thread at a time.
class Screen {
 public:
  void line(std::string_view text) {
    clear();
    fmt::print(stderr, "{}\n", text);
  }

  void progress(const Progress& event) {
    const bool is_new = event.stage != stage_ || event.done < first_done_;
    if (is_new) begin(event);
    const bool finished = event.total > 0 && event.done >= event.total;
    if (!is_new && !finished && seconds_since(shown_) < (terminal_ ? 0.1 : 10.0)) return;
    shown_ = Clock::now();
    const double seconds = seconds_since(begun_);
    const double rate = seconds > 0.05 ? (event.done - first_done_) / seconds : 0;
    show(progress_text(event, rate));
  }

  void clear() {
    if (drawn_) std::fputs("\r\033[K", stderr);
    drawn_ = false;
  }

 private:
  void begin(const Progress& event) {
    stage_ = event.stage;
    first_done_ = event.done;
    begun_ = Clock::now();
  }

  void show(const std::string& text) {
    if (!terminal_) {
      line(text);
      return;
    }
    winsize size{};
    const size_t width =
        ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1 : 79;
    fmt::print(stderr, "\r\033[K{}", std::string_view(text).substr(0, width));
    std::fflush(stderr);
    drawn_ = true;
  }

  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  bool drawn_ = false;
  std::string stage_;
  double first_done_ = 0;
  Clock::time_point begun_;
  Clock::time_point shown_;
};

Screen& screen() {
  static Screen only;
  return only;
}

}  // namespace

std::string progress_text(const Progress& progress, double rate) {
  std::string text =
      fmt::format("[{}] {}", progress.stage, amount_text(progress.done, progress.unit));
  if (progress.total > 0) {
    text = fmt::format(
        "[{}] {} of {}", progress.stage,
        progress.unit == "B" ? amount_text(progress.done, "B") : count_text(progress.done),
        amount_text(progress.total, progress.unit));
  }
  if (rate > 0) text += fmt::format(", {}/s", amount_text(rate, progress.unit));
  if (rate > 0 && progress.total > progress.done) {
    text += fmt::format(", {} left", duration_text((progress.total - progress.done) / rate));
  }
  return progress.note.empty() ? text : fmt::format("{}, {}", text, progress.note);
}

void show_progress(bool quiet) {
  if (quiet) {
    set_log_sink({});
    return;
  }
  set_log_sink({[](std::string_view text) { screen().line(text); },
                [](const Progress& event) { screen().progress(event); }});
}

void clear_progress() { screen().clear(); }

}  // namespace moue
