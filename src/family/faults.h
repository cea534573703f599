// A list of faults of one kind: all are counted, the first are shown.
#pragma once

#include "core/text.h"

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moue {

class Faults {
 public:
  static constexpr size_t kShown = 12;

  template <class... Args>
  void add(fmt::format_string<Args...> text, Args&&... args) {
    ++count_;
    if (!is_full()) shown_.push_back(fmt::format(text, std::forward<Args>(args)...));
  }
  void add_unnamed(int64_t count) { count_ += count; }
  bool is_full() const { return shown_.size() == kShown; }
  int64_t count() const { return count_; }

  /// "3 tensors missing (a, b, c)".
  std::string text(std::string_view noun, std::string_view what) const {
    const int64_t hidden = count_ - static_cast<int64_t>(shown_.size());
    const std::string more = hidden > 0 ? fmt::format(" and {} more", hidden) : "";
    return fmt::format("{} {} ({}{})", counted(count_, noun), what, join(shown_), more);
  }

 private:
  std::vector<std::string> shown_;
  int64_t count_ = 0;
};

}  // namespace moue
