// Reflink by FICLONE, hard link, symbolic link, or copy within the kernel: the first that works.
#include "convert/link.h"

#include "core/disk.h"
#include "core/files.h"
#include "core/text.h"
#include "moue/error.h"

#include <fcntl.h>

#include <cerrno>

namespace moue {

namespace fs = std::filesystem;

namespace {

// The file behind `from`, which may be a link.
InputFile open_source(const fs::path& from) {
  fs::path file;
  if (disk::real_path(from, file) != 0) {
    fail("convert", "{} leads nowhere: {}", from.string(), error_text(errno));
  }
  return InputFile(file, "convert");
}

[[noreturn]] void fail_link(const InputFile& source, const fs::path& to, int error) {
  fail_disk("convert", "{} cannot be linked to {}: {}", to.string(), source.path().string(),
            error_text(error));
}

bool reflink(const InputFile& source, const fs::path& to) {
  const Descriptor target(disk::open(to, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW));
  if (target.get() < 0) {
    fail_disk("convert", "{} cannot be created: {}", to.string(), error_text(errno));
  }
  if (disk::clone(source.descriptor(), target.get()) == 0) return true;
  const int error = errno;
  disk::unlink(to);
  if (!is_unable(error)) fail_link(source, to, error);
  return false;
}

bool hard_link(const InputFile& source, const fs::path& to) {
  if (disk::link(source.path(), to) != 0) {
    if (!is_unable(errno)) fail_link(source, to, errno);
    return false;
  }
  struct stat made {
  }, wanted{};
  if (disk::lstat(to, made) != 0 || disk::fstat(source.descriptor(), wanted) != 0) {
    fail_link(source, to, errno);
  }
  // Whoever moves files meanwhile gets no stranger's file linked.
  const bool same = made.st_ino == wanted.st_ino && made.st_dev == wanted.st_dev;
  if (!same) disk::unlink(to);
  return same;
}

bool symlink(const InputFile& source, const fs::path& to) {
  if (disk::symlink(source.path(), to) == 0) return true;
  if (!is_unable(errno)) fail_link(source, to, errno);
  return false;
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
  const InputFile source = open_source(from);
  if (reflink(source, to)) return LinkKind::Reflink;
  if (hard_link(source, to)) return LinkKind::HardLink;
  if (symlink(source, to)) return LinkKind::Symlink;
  copy_file_whole(source.path(), to, "convert");
  return LinkKind::Copy;
}

LinkKind clone_file(const fs::path& from, const fs::path& to) {
  const InputFile source = open_source(from);
  if (reflink(source, to)) return LinkKind::Reflink;
  copy_file_whole(source.path(), to, "convert");
  return LinkKind::Copy;
}

}  // namespace moue
