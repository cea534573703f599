// The one source that calls the system's file functions.
#include "core/disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <memory>

namespace moue::disk {
namespace {

constexpr size_t kMostBytes = size_t{1} << 30;  // Linux moves at most 2 GiB at a time

std::atomic<Hook*> current = nullptr;

// Calls `function(bytes)` under the hook until it is not interrupted.
template <class Function>
auto transfer(Call call, size_t bytes, Function function) -> decltype(function(bytes)) {
  bytes = std::min(bytes, kMostBytes);
  while (true) {
    Hook* hook = current.load(std::memory_order_acquire);
    const int verdict = hook == nullptr ? 0 : hook->before(call, bytes);
    if (verdict == EINTR) continue;
    if (verdict == kSkip) return 0;
    if (verdict != 0) {
      errno = verdict;
      return -1;
    }
    const auto result = function(bytes);
    const int error = errno;
    if (hook != nullptr) hook->after(call, static_cast<int64_t>(result));
    if (result >= 0 || error != EINTR) {
      errno = error;
      return result;
    }
  }
}

template <class Function>
int hooked(Call call, Function function) {
  return transfer(call, 0, [&](size_t) { return function(); });
}

off_t signed_offset(uint64_t offset) { return static_cast<off_t>(offset); }

int read_names(DIR* directory, std::vector<std::string>& names) {
  while (true) {
    errno = 0;
    const dirent* entry = ::readdir(directory);
    if (entry == nullptr) return errno == 0 ? 0 : -1;
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
}

int list_names(int directory, std::vector<std::string>& names) {
  names.clear();
  const int fd = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -1;
  const std::unique_ptr<DIR, int (*)(DIR*)> open(::fdopendir(fd), ::closedir);
  if (!open) {
    const int error = errno;
    ::close(fd);
    errno = error;
    return -1;
  }
  const int result = read_names(open.get(), names);
  std::sort(names.begin(), names.end());
  return result;
}

}  // namespace

Hook* set_hook(Hook* hook) { return current.exchange(hook); }

int open(const Path& path, int flags, mode_t mode) {
  return hooked(Call::Open, [&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); });
}

int open_at(int directory, const std::string& name, int flags) {
  return hooked(Call::Open,
                [&] { return ::openat(directory, name.c_str(), flags | O_CLOEXEC, 0666); });
}

// Linux closes the descriptor even where it reports an error, so that nothing is left to be done.
void close(int fd) {
  hooked(Call::Close, [] { return 0; });
  ::close(fd);
}

ssize_t pread(int fd, void* out, size_t bytes, uint64_t offset) {
  return transfer(Call::Read, bytes,
                  [&](size_t most) { return ::pread(fd, out, most, signed_offset(offset)); });
}

ssize_t write(int fd, const void* data, size_t bytes) {
  return transfer(Call::Write, bytes, [&](size_t most) { return ::write(fd, data, most); });
}

ssize_t pwrite(int fd, const void* data, size_t bytes, uint64_t offset) {
  return transfer(Call::Write, bytes,
                  [&](size_t most) { return ::pwrite(fd, data, most, signed_offset(offset)); });
}

ssize_t copy_range(int from, uint64_t from_offset, int to, uint64_t to_offset, size_t bytes) {
  return transfer(Call::CopyRange, bytes, [&](size_t most) {
    off_t in = signed_offset(from_offset), out = signed_offset(to_offset);
    return ::copy_file_range(from, &in, to, &out, most, 0);
  });
}

int sync(int fd) {
  return hooked(Call::Sync, [&] { return ::fsync(fd); });
}

int resize(int fd, uint64_t bytes) {
  return hooked(Call::Resize, [&] { return ::ftruncate(fd, signed_offset(bytes)); });
}

int reserve(int fd, uint64_t bytes) {
  return hooked(Call::Reserve, [&] { return ::fallocate(fd, 0, 0, signed_offset(bytes)); });
}

int rename(const Path& from, const Path& to) {
  return hooked(Call::Rename, [&] { return ::rename(from.c_str(), to.c_str()); });
}

int rename_new(const Path& from, const Path& to) {
  return hooked(Call::Rename, [&] {
    return ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE);
  });
}

int exchange(const Path& one, const Path& other) {
  return hooked(Call::Exchange, [&] {
    return ::renameat2(AT_FDCWD, one.c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE);
  });
}

int link(const Path& from, const Path& to) {
  return hooked(Call::Link, [&] { return ::link(from.c_str(), to.c_str()); });
}

int symlink(const Path& target, const Path& link) {
  return hooked(Call::Link, [&] { return ::symlink(target.c_str(), link.c_str()); });
}

int clone(int from, int to) {
  return hooked(Call::Clone, [&] { return ::ioctl(to, FICLONE, from); });
}

int unlink(const Path& path) {
  return hooked(Call::Unlink, [&] { return ::unlink(path.c_str()); });
}

int unlink_at(int directory, const std::string& name) {
  return hooked(Call::Unlink, [&] { return ::unlinkat(directory, name.c_str(), 0); });
}

int make_directory(const Path& path) {
  return hooked(Call::MakeDirectory, [&] { return ::mkdir(path.c_str(), 0777); });
}

int remove_directory(const Path& path) {
  return hooked(Call::RemoveDirectory, [&] { return ::rmdir(path.c_str()); });
}

int remove_directory_at(int directory, const std::string& name) {
  return hooked(Call::RemoveDirectory,
                [&] { return ::unlinkat(directory, name.c_str(), AT_REMOVEDIR); });
}

int stat(const Path& path, struct stat& status) {
  return hooked(Call::Stat, [&] { return ::stat(path.c_str(), &status); });
}

int lstat(const Path& path, struct stat& status) {
  return hooked(Call::Stat, [&] { return ::lstat(path.c_str(), &status); });
}

int fstat(int fd, struct stat& status) {
  return hooked(Call::Stat, [&] { return ::fstat(fd, &status); });
}

int lstat_at(int directory, const std::string& name, struct stat& status) {
  return hooked(Call::Stat,
                [&] { return ::fstatat(directory, name.c_str(), &status, AT_SYMLINK_NOFOLLOW); });
}

int read_link(const Path& path, Path& target) {
  return hooked(Call::Stat, [&] {
    std::string text(PATH_MAX, '\0');
    const ssize_t length = ::readlink(path.c_str(), text.data(), text.size());
    if (length >= 0) target = text.substr(0, static_cast<size_t>(length));
    return length < 0 ? -1 : 0;
  });
}

int real_path(const Path& path, Path& canonical) {
  return hooked(Call::Stat, [&] {
    const std::unique_ptr<char, void (*)(void*)> text(::realpath(path.c_str(), nullptr), std::free);
    if (text) canonical = text.get();
    return text ? 0 : -1;
  });
}

int list(int directory, std::vector<std::string>& names) {
  return hooked(Call::List, [&] { return list_names(directory, names); });
}

int lock(int fd) {
  return hooked(Call::Lock, [&] { return ::flock(fd, LOCK_EX | LOCK_NB); });
}

int space(const Path& path, struct statvfs& status) {
  return hooked(Call::Space, [&] { return ::statvfs(path.c_str(), &status); });
}

}  // namespace moue::disk
