// Staging: a directory that appears under its name complete, or not at all.
#include "core/files.h"
#include "core/text.h"
#include "moue/error.h"
#include "moue/log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace moue {
namespace fs = std::filesystem;
namespace {

fs::path without_slash(const fs::path& path) {
  const fs::path plain = path.lexically_normal();
  return plain.has_filename() ? plain : plain.parent_path();
}

bool stands(const fs::path& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0;
}

std::string reason(int error) { return std::generic_category().message(error); }

void sync_tree(const fs::path& directory) {
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    if (entry.is_symlink()) continue;
    if (entry.is_regular_file() || entry.is_directory()) sync_path(entry.path(), "files");
  }
  sync_path(directory, "files");
}

}  // namespace

Staging::Staging(fs::path target)
    : target_(without_slash(target)), partial_(partial_path(target_)) {
  if (!target_.has_filename() || target_.filename() == "." || target_.filename() == "..") {
    fail("files", "{} cannot be made as a new directory; give it a name",
         in_quotes(target.native()));
  }
  if (stands(target_)) {
    fail("files", "{} exists, wanted a new directory; remove it or choose another name",
         target_.native());
  }
  make_parents();
  try {
    take();
  } catch (...) {
    for (auto it = made_parents_.rbegin(); it != made_parents_.rend(); ++it) ::rmdir(it->c_str());
    throw;
  }
}

void Staging::make_parents() {
  std::vector<fs::path> missing;
  for (fs::path at = target_.parent_path(); !at.empty() && !stands(at); at = at.parent_path()) {
    missing.push_back(at);
  }
  for (auto it = missing.rbegin(); it != missing.rend(); ++it) {
    if (::mkdir(it->c_str(), 0777) != 0) {
      if (errno == EEXIST) continue;
      const int error = errno;
      for (auto made = made_parents_.rbegin(); made != made_parents_.rend(); ++made) {
        ::rmdir(made->c_str());
      }
      fail("files", "{} cannot be created: {}", it->native(), reason(error));
    }
    made_parents_.push_back(*it);
  }
}

void Staging::take() {
  const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW;
  if (Descriptor stale(::open(partial_.c_str(), flags)); stale.get() >= 0) {
    if (!lock_partial(stale, partial_)) {
      fail("files", "{} is being made by another process", target_.native());
    }
    std::error_code error;
    fs::remove_all(partial_, error);
    if (error) {
      fail("files", "{}, left by a run that was interrupted, cannot be removed: {}",
           partial_.native(), error.message());
    }
    log_line("files", "removed {}, left by a run that was interrupted", partial_.native());
  } else if (stands(partial_)) {
    fail("files", "{} is in the way of {}; remove it", partial_.native(), target_.native());
  }
  if (::mkdir(partial_.c_str(), 0777) != 0) {
    fail("files", "{} cannot be created: {}", target_.native(), reason(errno));
  }
  lock_ = Descriptor(::open(partial_.c_str(), flags));
  if (lock_.get() < 0 || !lock_partial(lock_, partial_)) {
    lock_.reset();
    fail("files", "{} is being made by another process", target_.native());
  }
}

Staging::~Staging() {
  if (lock_.get() < 0) return;
  std::error_code error;
  fs::remove_all(partial_, error);
  if (error) log_line("files", "{} could not be removed: {}", partial_.native(), error.message());
  for (auto it = made_parents_.rbegin(); it != made_parents_.rend(); ++it) ::rmdir(it->c_str());
}

void Staging::commit() {
  sync_tree(partial_);
  rename_new(partial_, target_, "files");
  lock_.reset();
  sync_path(partial_.parent_path(), "files");
  for (const fs::path& parent : made_parents_) {
    const fs::path above = parent.parent_path();
    sync_path(above.empty() ? fs::path(".") : above, "files");
  }
}

}  // namespace moue
