// Files read by checked, positioned reads; what surrounds a write: space, syncs, renames, locks.
#include "core/files.h"

#include "core/disk.h"
#include "core/text.h"
#include "core/tree.h"
#include "moue/error.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace moue {
namespace fs = std::filesystem;
namespace {

std::string name_of(const fs::path& path) { return printable(path.native(), 400); }

std::string_view kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

[[noreturn]] void fail_open(const fs::path& path, std::string_view stage, int error) {
  fs::path target;
  if (error == ENOENT && disk::read_link(path, target) == 0) {
    fail(stage, "{} is a link to {}, which is not there", name_of(path), name_of(target));
  }
  if (error == ENOENT) fail(stage, "{} is not there", name_of(path));
  if (error == ENXIO)
    fail(stage, "{} is a socket or a device, wanted a regular file", name_of(path));
  fail_disk(stage, "{} cannot be opened: {}", name_of(path), error_text(error));
}

int64_t nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
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
  if (fd_ >= 0) disk::close(release());
}

InputFile::InputFile(fs::path path, std::string_view stage)
    : path_(std::move(path)), stage_(stage) {
  // O_NONBLOCK: a FIFO without a writer would otherwise hold us forever.
  fd_ = Descriptor(disk::open(path_, O_RDONLY | O_NONBLOCK));
  if (fd_.get() < 0) fail_open(path_, stage_, errno);
  struct stat status {};
  if (disk::fstat(fd_.get(), status) != 0) fail_open(path_, stage_, errno);
  if (!S_ISREG(status.st_mode)) {
    fail(stage_, "{} is {}, wanted a regular file", name_of(path_), kind_of(status.st_mode));
  }
  identity_ = {status.st_ino, static_cast<uint64_t>(status.st_size), nanoseconds(status.st_mtim),
               nanoseconds(status.st_ctim)};
}

void InputFile::read_at(uint64_t offset, std::span<std::byte> out) const {
  for (size_t done = 0; done < out.size();) {
    const ssize_t got = disk::pread(fd_.get(), out.data() + done, out.size() - done, offset + done);
    if (got < 0) {
      fail_disk(stage_, "{} cannot be read at byte {}: {}", name_of(path_), offset + done,
                error_text(errno));
    }
    if (got == 0) {
      fail(stage_,
           "{} ends at byte {}, wanted {} bytes as when it was opened; is it being written?",
           name_of(path_), offset + done, size());
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

bool is_unable(int error) {
  constexpr std::array kUnable = {EOPNOTSUPP, ENOSYS, EINVAL, ENODEV, ENOTTY, EXDEV, EPERM, EMLINK};
  return std::find(kUnable.begin(), kUnable.end(), error) != kUnable.end();
}

bool lock_partial(const Descriptor& fd, const fs::path& path) {
  // A file system without locks (some network ones) is trusted to have one writer.
  if (disk::lock(fd.get()) != 0 && errno == EWOULDBLOCK) return false;
  struct stat ours {
  }, named{};
  if (disk::fstat(fd.get(), ours) != 0 || (disk::lstat(path, named) != 0 && errno != ENOENT)) {
    fail_disk("files", "{} cannot be looked up: {}", name_of(path), error_text(errno));
  }
  return ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
}

void replace_file(const fs::path& from, const fs::path& to, std::string_view stage) {
  if (disk::rename(from, to) != 0) {
    const int error = errno;
    disk::unlink(from);
    fail_disk(stage, "{} cannot be put in place: {}", name_of(to), error_text(error));
  }
  sync_path(parent_of(to), stage);
}

void rename_new(const fs::path& from, const fs::path& to, std::string_view stage) {
  int rc = disk::rename_new(from, to);
  if (rc != 0 && (errno == EINVAL || errno == ENOSYS)) {  // a file system without that flag
    if (stands(to)) {
      errno = EEXIST;
    } else {
      rc = disk::rename(from, to);
    }
  }
  if (rc != 0 && errno == EEXIST) {
    fail(stage, "{} cannot be put in place: {}", name_of(to), error_text(errno));
  }
  if (rc != 0) fail_disk(stage, "{} cannot be put in place: {}", name_of(to), error_text(errno));
}

void sync_path(const fs::path& path, std::string_view stage) {
  const Descriptor fd(disk::open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW));
  // EINVAL: the file system has nothing to sync here.
  if (fd.get() < 0 || (disk::sync(fd.get()) != 0 && errno != EINVAL)) {
    fail_disk(stage, "{} could not be brought to disk: {}", name_of(path), error_text(errno));
  }
}

void require_space(const fs::path& directory, uint64_t bytes) {
  fs::path there = directory.lexically_normal();
  while (!there.empty() && !stands(there) && there.parent_path() != there) {
    there = there.parent_path();
  }
  if (there.empty()) there = ".";
  struct statvfs status {};
  if (disk::space(there, status) != 0) {
    fail_disk("files", "{}: free space is unknown: {}", name_of(there), error_text(errno));
  }
  const uint64_t free = uint64_t{status.f_bavail} * status.f_frsize;
  if (free < bytes) {
    fail_disk("files", "{} has {} free, wanted {}; free some space or write to another disk",
              name_of(there), mib_text(free), mib_text(bytes));
  }
}

}  // namespace moue
