// The hook that makes a disk faulty.
#include "support/faults.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>

namespace moue::test {

using disk::Call;

std::string_view to_string(Fault fault) {
  constexpr std::array<std::string_view, 7> kNames = {"none",  "EIO",  "ENOSPC", "EINTR",
                                                      "short", "dead", "_exit"};
  return kNames.at(static_cast<size_t>(fault));
}

std::string_view to_string(Call call) {
  constexpr std::array<std::string_view, 19> kNames = {
      "open",    "close",  "read",     "write", "copy_range", "sync",   "resize",
      "reserve", "rename", "exchange", "link",  "clone",      "unlink", "mkdir",
      "rmdir",   "stat",   "list",     "lock",  "space"};
  return kNames.at(static_cast<size_t>(call));
}

FaultyDisk::FaultyDisk(Fault fault, uint64_t at)
    : fault_(fault), at_(at), old_(disk::set_hook(this)) {}

FaultyDisk::~FaultyDisk() { disk::set_hook(old_); }

int FaultyDisk::faulty(Call call, size_t& bytes) {
  if (fault_ == Fault::Short && bytes < 2) return 0;
  met_ = call;
  if (instead_) {
    instead_();
    return 0;
  }
  switch (fault_) {
    case Fault::InputOutput:
      return EIO;
    case Fault::NoSpace:
      return ENOSPC;
    case Fault::Interruption:
      return EINTR;
    case Fault::Short:
      bytes /= 2;
      return 0;
    case Fault::Dead:
      dead_ = true;
      return EIO;
    case Fault::Exit:
      ::_exit(kExited);
    case Fault::None:
      break;
  }
  return 0;
}

int FaultyDisk::before(Call call, size_t& bytes) {
  const uint64_t number = calls_++;
  by_kind_[static_cast<size_t>(call)]++;
  if (dead_) return call == Call::Close ? 0 : EIO;
  if (number == at_ || bytes_ >= due_bytes_) {
    due_bytes_ = UINT64_MAX;
    if (const int error = faulty(call, bytes); error != 0) return error;
  }
  if (lacking_.contains(call)) return EOPNOTSUPP;
  return call == Call::Sync ? disk::kSkip : 0;
}

void FaultyDisk::after(Call call, int64_t result) {
  const bool moves = call == Call::Read || call == Call::Write || call == Call::CopyRange;
  if (!moves || result <= 0) return;
  bytes_ += static_cast<uint64_t>(result) * (call == Call::CopyRange ? 2 : 1);
}

int in_child(const std::function<void()>& run) {
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    int code = 0;
    try {
      run();
    } catch (...) {
      code = 1;
    }
    ::_exit(code);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace moue::test
