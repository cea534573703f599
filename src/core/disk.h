// Every call to the file system: thin over the system's own, with one hook through which tests
// count them, fail them and stop at one.
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace moue::disk {

enum class Call : uint8_t {
  Open,
  Close,
  Read,
  Write,
  CopyRange,
  Sync,
  Resize,
  Reserve,
  Rename,
  Exchange,
  Link,
  Clone,
  Unlink,
  MakeDirectory,
  RemoveDirectory,
  Stat,
  List,
  Lock,
  Space,
};

/// What a test puts around every call of the process, of all threads.
class Hook {
 public:
  virtual ~Hook() = default;
  /// 0 lets the call happen, an errno value fails it without, kSkip makes it succeed without. Of a
  /// transfer `bytes` may be lowered, not to 0. EINTR: asked again, as the system's calls are.
  virtual int before(Call call, size_t& bytes) = 0;
  /// What the call returned: bytes, a descriptor, 0 or -1. Not called for what did not happen.
  virtual void after(Call call, int64_t result) = 0;
};
inline constexpr int kSkip = -1;

/// Replaces the hook (null: none, as in every run that is no test) and returns the old one. Not to
/// be called while another thread uses files.
Hook* set_hook(Hook* hook);

// Each is the system's function of that name: what is not 0 or more is -1 with errno. Interrupted
// calls are made again; descriptors close on exec.

using Path = std::filesystem::path;

int open(const Path& path, int flags, mode_t mode = 0666);
int open_at(int directory, const std::string& name, int flags);
void close(int fd);
ssize_t pread(int fd, void* out, size_t bytes, uint64_t offset);
ssize_t write(int fd, const void* data, size_t bytes);
ssize_t pwrite(int fd, const void* data, size_t bytes, uint64_t offset);
/// Within the kernel, from `from_offset` of one file to `to_offset` of another.
ssize_t copy_range(int from, uint64_t from_offset, int to, uint64_t to_offset, size_t bytes);
int sync(int fd);
int resize(int fd, uint64_t bytes);
/// fallocate: the first `bytes` get their blocks, the file that length at least.
int reserve(int fd, uint64_t bytes);

int rename(const Path& from, const Path& to);
int rename_new(const Path& from, const Path& to);  ///< RENAME_NOREPLACE
int exchange(const Path& one, const Path& other);  ///< RENAME_EXCHANGE
int link(const Path& from, const Path& to);
int symlink(const Path& target, const Path& link);
int clone(int from, int to);  ///< FICLONE
int unlink(const Path& path);
int unlink_at(int directory, const std::string& name);
int make_directory(const Path& path);
int remove_directory(const Path& path);
int remove_directory_at(int directory, const std::string& name);

int stat(const Path& path, struct stat& status);
int lstat(const Path& path, struct stat& status);
int fstat(int fd, struct stat& status);
int lstat_at(int directory, const std::string& name, struct stat& status);
int read_link(const Path& path, Path& target);
int real_path(const Path& path, Path& canonical);
/// The names in an open directory, without "." and "..", sorted.
int list(int directory, std::vector<std::string>& names);
int lock(int fd);  ///< flock: exclusive, without waiting
int space(const Path& path, struct statvfs& status);

}  // namespace moue::disk
