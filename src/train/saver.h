// Writes steps while the run goes on: one at a time, in a thread that gives way to the run's.
#pragma once

#include <filesystem>
#include <functional>
#include <future>

namespace moue {

class Saver {
 public:
  /// Runs `write`, which returns what it wrote, in the background. None may be under way.
  void start(std::function<std::filesystem::path()> write);
  /// Waits for what is under way, and throws what it threw.
  void wait();
  /// The same for what has ended; returns at once where it has not.
  void check();
  /// What was written last and waited for; "" before.
  const std::filesystem::path& saved() const { return saved_; }

 private:
  std::future<std::filesystem::path> writing_;  ///< its destructor waits
  std::filesystem::path saved_;
};

}  // namespace moue
