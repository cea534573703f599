// The one exception the library throws for anything a user can fix.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string_view>
#include <utility>

namespace moue {

/// A fault the user can mend: bad input, bad recipe, full disk. Exit code 2.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Work was stopped by a signal or a time limit with its state saved. Exit code 4.
class Interrupted : public Error {
 public:
  using Error::Error;
};

/// The disk refused: full, failing, gone. What was complete can be kept for another try. Exit
/// code 2.
class DiskError : public Error {
 public:
  using Error::Error;
};

/// Throws Error with the house message: "[stage] what is wrong, seen, wanted; what to do".
template <class... Args>
[[noreturn]] void fail(std::string_view stage, fmt::format_string<Args...> text, Args&&... args) {
  throw Error(fmt::format("[{}] {}", stage, fmt::format(text, std::forward<Args>(args)...)));
}

/// The same, as a DiskError.
template <class... Args>
[[noreturn]] void fail_disk(std::string_view stage, fmt::format_string<Args...> text,
                            Args&&... args) {
  throw DiskError(fmt::format("[{}] {}", stage, fmt::format(text, std::forward<Args>(args)...)));
}

}  // namespace moue
