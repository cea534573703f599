// Reflink by FICLONE, hard link, symbolic link, or copy within the kernel: the first that works.
#include "convert/link.h"

#include "core/files.h"
#include "moue/error.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

namespace moue {

namespace fs = std::filesystem;

namespace {

struct Source {
  fs::path path;
  Descriptor descriptor;
  struct stat status {};
};

Source open_source(const fs::path& from) {
  std::error_code missing;
  Source source{fs::canonical(from, missing), Descriptor(), {}};
  if (missing) fail("convert", "{} leads nowhere: {}", from.string(), missing.message());
  source.descriptor = Descriptor(::open(source.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  const int fd = source.descriptor.get();
  if (fd < 0) {
    fail("convert", "{} cannot be read: {}", source.path.string(), std::strerror(errno));
  }
  if (::fstat(fd, &source.status) != 0 || !S_ISREG(source.status.st_mode)) {
    fail("convert", "{} is not a regular file", source.path.string());
  }
  return source;
}

Descriptor create(const fs::path& to) {
  Descriptor file(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (file.get() < 0) {
    fail("convert", "{} cannot be created: {}", to.string(), std::strerror(errno));
  }
  return file;
}

bool reflink(const Source& source, const fs::path& to) {
  const Descriptor target = create(to);
  if (::ioctl(target.get(), FICLONE, source.descriptor.get()) == 0) return true;
  ::unlink(to.c_str());
  return false;
}

[[noreturn]] void copy_failed(const Source& source, const fs::path& to, uint64_t done) {
  fail("convert", "{}: {} after {} of {} bytes of {}", to.string(), std::strerror(errno), done,
       source.status.st_size, source.path.string());
}

// Through user space, where the kernel refuses copy_file_range between two file systems.
void copy_buffered(const Source& source, const fs::path& to, int target, uint64_t done) {
  std::vector<std::byte> buffer(size_t{1} << 20);
  const auto size = static_cast<uint64_t>(source.status.st_size);
  while (done < size) {
    const ssize_t got =
        ::pread(source.descriptor.get(), buffer.data(),
                std::min<uint64_t>(buffer.size(), size - done), static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = ENODATA;
    if (got <= 0) copy_failed(source, to, done);
    for (ssize_t written = 0; written < got;) {
      const ssize_t now =
          ::write(target, buffer.data() + written, static_cast<size_t>(got - written));
      if (now < 0 && errno == EINTR) continue;
      if (now < 0) copy_failed(source, to, done);
      written += now;
    }
    done += static_cast<uint64_t>(got);
  }
}

void copy_bytes(const Source& source, const fs::path& to) {
  const Descriptor target = create(to);
  const auto size = static_cast<uint64_t>(source.status.st_size);
  uint64_t done = 0;
  while (done < size) {
    const ssize_t got =
        ::copy_file_range(source.descriptor.get(), nullptr, target.get(), nullptr, size - done, 0);
    if (got < 0 && errno == EINTR) continue;
    const bool unable = got < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS ||
                                    errno == EOPNOTSUPP || errno == EPERM);
    if (unable || got == 0) return copy_buffered(source, to, target.get(), done);
    if (got < 0) copy_failed(source, to, done);
    done += static_cast<uint64_t>(got);
  }
}

bool hard_link(const Source& source, const fs::path& to) {
  if (::link(source.path.c_str(), to.c_str()) != 0) return false;
  struct stat made {};
  const bool same = ::lstat(to.c_str(), &made) == 0 && made.st_ino == source.status.st_ino &&
                    made.st_dev == source.status.st_dev;
  if (!same) ::unlink(to.c_str());
  return same;
}

}  // namespace

std::string_view to_string(LinkKind kind) {
  switch (kind) {
    case LinkKind::Reflink:
      return "reflink";
    case LinkKind::HardLink:
      return "hard link";
    case LinkKind::Symlink:
      return "symbolic link";
    case LinkKind::Copy:
      return "copy";
  }
  return "";
}

LinkKind link_file(const fs::path& from, const fs::path& to) {
  const Source source = open_source(from);
  if (reflink(source, to)) return LinkKind::Reflink;
  if (hard_link(source, to)) return LinkKind::HardLink;
  if (::symlink(source.path.c_str(), to.c_str()) == 0) return LinkKind::Symlink;
  copy_bytes(source, to);
  return LinkKind::Copy;
}

LinkKind clone_file(const fs::path& from, const fs::path& to) {
  const Source source = open_source(from);
  if (reflink(source, to)) return LinkKind::Reflink;
  copy_bytes(source, to);
  return LinkKind::Copy;
}

}  // namespace moue
