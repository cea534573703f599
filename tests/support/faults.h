// A disk that fails, is interrupted, moves half of what it was asked, or ends the process at its
// n-th call; and counts what it moves.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "core/disk.h"

namespace moue::test {

enum class Fault : uint8_t {
  None,
  InputOutput,   ///< EIO
  NoSpace,       ///< ENOSPC
  Interruption,  ///< EINTR
  Short,         ///< half of the bytes; only of transfers
  Dead,          ///< nothing reaches the disk from here on, as when the process had been killed
  Exit,          ///< _exit(kExited)
};
inline constexpr int kExited = 99;
std::string_view to_string(Fault fault);
std::string_view to_string(disk::Call call);

/// Stands between the library and the disk while it lives. fsync is counted and left out: tests of
/// this process need none, and it is what takes the time.
class FaultyDisk : public disk::Hook {
 public:
  explicit FaultyDisk(Fault fault = Fault::None, uint64_t at = UINT64_MAX);
  ~FaultyDisk() override;
  FaultyDisk(const FaultyDisk&) = delete;
  FaultyDisk& operator=(const FaultyDisk&) = delete;

  /// Such calls are answered as by a file system that lacks them.
  void lacks(disk::Call call) { lacking_.insert(call); }
  /// The fault is due once so many bytes were moved.
  void due_after(uint64_t bytes) { due_bytes_ = bytes; }
  /// Runs when the fault is due, in place of it.
  void instead(std::function<void()> what) { instead_ = std::move(what); }

  uint64_t calls() const { return calls_; }
  uint64_t calls(disk::Call call) const { return by_kind_[static_cast<size_t>(call)]; }
  uint64_t bytes() const { return bytes_; }  ///< read and written; a copy is both
  /// The call that met the fault; nothing where it was not reached, or could not be so met.
  std::optional<disk::Call> met() const { return met_; }

  int before(disk::Call call, size_t& bytes) override;
  void after(disk::Call call, int64_t result) override;

 private:
  int faulty(disk::Call call, size_t& bytes);

  static constexpr size_t kKinds = static_cast<size_t>(disk::Call::Space) + 1;
  Fault fault_;
  uint64_t at_, due_bytes_ = UINT64_MAX;
  std::set<disk::Call> lacking_;
  std::function<void()> instead_;
  std::atomic<uint64_t> calls_ = 0, bytes_ = 0;
  std::array<std::atomic<uint64_t>, kKinds> by_kind_{};
  std::optional<disk::Call> met_;
  std::atomic<bool> dead_ = false;
  disk::Hook* old_;
};

/// Calls `run` in a process of its own; its exit code, 0 where it returns, 1 where it throws.
int in_child(const std::function<void()>& run);

}  // namespace moue::test
