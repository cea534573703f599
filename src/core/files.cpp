// Files read by checked, positioned reads; files written beside their name, synced, then renamed.
#include "core/files.h"

#include "core/text.h"
#include "moue/error.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

namespace moue {
namespace fs = std::filesystem;
namespace {

constexpr size_t kLargestTransfer = size_t{1} << 30;  // Linux moves at most 2 GiB at a time

std::string reason(int error) { return std::generic_category().message(error); }

std::string name_of(const fs::path& path) { return printable(path.native(), 400); }

std::string mib_text(uint64_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

std::string_view kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

[[noreturn]] void fail_open(const fs::path& path, std::string_view stage, int error) {
  std::error_code ignored;
  if (error == ENOENT && fs::is_symlink(fs::symlink_status(path, ignored))) {
    fail(stage, "{} is a link to {}, which is not there", name_of(path),
         name_of(fs::read_symlink(path, ignored)));
  }
  if (error == ENOENT) fail(stage, "{} is not there", name_of(path));
  if (error == ENXIO)
    fail(stage, "{} is a socket or a device, wanted a regular file", name_of(path));
  fail(stage, "{} cannot be opened: {}", name_of(path), reason(error));
}

fs::path parent_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = other.release();
  }
  return *this;
}

int Descriptor::release() { return std::exchange(fd_, -1); }

void Descriptor::reset() {
  if (fd_ >= 0) ::close(release());
}

InputFile::InputFile(fs::path path, std::string_view stage)
    : path_(std::move(path)), stage_(stage) {
  // O_NONBLOCK: a FIFO without a writer would otherwise hold us forever.
  fd_ = Descriptor(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd_.get() < 0) fail_open(path_, stage_, errno);
  struct stat status {};
  if (::fstat(fd_.get(), &status) != 0) fail_open(path_, stage_, errno);
  if (!S_ISREG(status.st_mode)) {
    fail(stage_, "{} is {}, wanted a regular file", name_of(path_), kind_of(status.st_mode));
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

void InputFile::read_at(uint64_t offset, std::span<std::byte> out) const {
  for (size_t done = 0; done < out.size();) {
    const size_t want = std::min(out.size() - done, kLargestTransfer);
    const ssize_t got =
        ::pread(fd_.get(), out.data() + done, want, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      fail(stage_, "{} cannot be read at byte {}: {}", name_of(path_), offset + done,
           reason(errno));
    }
    if (got == 0) {
      fail(stage_,
           "{} ends at byte {}, wanted {} bytes as when it was opened; is it being written?",
           name_of(path_), offset + done, size_);
    }
    done += static_cast<size_t>(got);
  }
}

std::string read_whole_file(const fs::path& file, std::string_view stage, uint64_t most) {
  const InputFile input(file, stage);
  if (input.size() > most) {
    fail(stage, "{} has {} bytes, wanted at most {}", name_of(file), input.size(), most);
  }
  std::string text(input.size(), '\0');
  input.read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

fs::path partial_path(const fs::path& target) {
  fs::path plain = target.lexically_normal();
  if (!plain.has_filename()) plain = plain.parent_path();
  return parent_of(plain) / ("." + plain.filename().native() + ".moue-partial");
}

bool lock_partial(const Descriptor& fd, const fs::path& path) {
  // A file system without locks (some network ones) is trusted to have one writer.
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return false;
  struct stat ours {
  }, named{};
  return ::fstat(fd.get(), &ours) == 0 && ::lstat(path.c_str(), &named) == 0 &&
         ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
}

OutputFile::OutputFile(fs::path path, std::string_view stage, Existing existing)
    : path_(std::move(path)), partial_(partial_path(path_)), stage_(stage), existing_(existing) {
  struct stat status {};
  if (existing_ == Existing::Refuse && ::lstat(path_.c_str(), &status) == 0) {
    fail(stage_, "{} exists, wanted a new file; remove it or choose another name", name_of(path_));
  }
  Descriptor fd(
      ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666));
  if (fd.get() < 0) {
    fail(stage_, "{} cannot be created: {}", name_of(path_), reason(errno));
  }
  if (!lock_partial(fd, partial_)) {
    fail(stage_, "{} is being written by another process", name_of(path_));
  }
  if (::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode) || status.st_nlink != 1 ||
      ::ftruncate(fd.get(), 0) != 0) {
    fail(stage_, "{} is in the way of {}; remove it", name_of(partial_), name_of(path_));
  }
  fd_ = std::move(fd);
}

OutputFile::~OutputFile() {
  if (fd_.get() >= 0) ::unlink(partial_.c_str());
}

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd_.get(), bytes.data(), std::min(bytes.size(), kLargestTransfer));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) {
      fail(stage_, "{} could not be written after {}: {}; nothing of it was kept", name_of(path_),
           mib_text(written_), reason(errno));
    }
    bytes = bytes.subspan(static_cast<size_t>(put));
    written_ += static_cast<uint64_t>(put);
  }
}

void OutputFile::commit() {
  if (::fsync(fd_.get()) != 0) {
    fail(stage_, "{} could not be brought to disk: {}; nothing of it was kept", name_of(path_),
         reason(errno));
  }
  if (existing_ == Existing::Refuse) {
    rename_new(partial_, path_, stage_);
  } else if (::rename(partial_.c_str(), path_.c_str()) != 0) {
    fail(stage_, "{} cannot be put in place: {}", name_of(path_), reason(errno));
  }
  fd_.reset();
  sync_path(parent_of(path_), stage_);
}

void write_file_whole(const fs::path& file, std::span<const std::byte> bytes) {
  OutputFile output(file, "files", OutputFile::Existing::Replace);
  output.write(bytes);
  output.commit();
}

void write_file_whole(const fs::path& file, std::string_view text) {
  write_file_whole(file, std::as_bytes(std::span(text)));
}

void rename_new(const fs::path& from, const fs::path& to, std::string_view stage) {
  int rc = ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE);
  if (rc != 0 && (errno == EINVAL || errno == ENOSYS)) {  // a file system without that flag
    struct stat status {};
    if (::lstat(to.c_str(), &status) == 0) {
      errno = EEXIST;
    } else {
      rc = ::rename(from.c_str(), to.c_str());
    }
  }
  if (rc != 0) fail(stage, "{} cannot be put in place: {}", name_of(to), reason(errno));
}

void sync_path(const fs::path& path, std::string_view stage) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  // EINVAL: the file system has nothing to sync here.
  if (fd.get() < 0 || (::fsync(fd.get()) != 0 && errno != EINVAL)) {
    fail(stage, "{} could not be brought to disk: {}", name_of(path), reason(errno));
  }
}

void require_space(const fs::path& directory, uint64_t bytes) {
  fs::path there = directory.lexically_normal();
  std::error_code ignored;
  while (!fs::exists(there, ignored)) {
    if (!there.has_relative_path() || there.parent_path() == there) break;
    there = parent_of(there);
  }
  struct statvfs status {};
  if (::statvfs(there.c_str(), &status) != 0) {
    fail("files", "{}: free space is unknown: {}", name_of(there), reason(errno));
  }
  const uint64_t free = uint64_t{status.f_bavail} * status.f_frsize;
  if (free < bytes) {
    fail("files", "{} has {} free, wanted {}; free some space or write to another disk",
         name_of(there), mib_text(free), mib_text(bytes));
  }
}

}  // namespace moue
