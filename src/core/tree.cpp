// Directories and names, through the disk's calls.
#include "core/tree.h"

#include "core/disk.h"
#include "core/files.h"
#include "core/text.h"
#include "moue/error.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

namespace moue {
namespace fs = std::filesystem;
namespace {

std::string name_of(const fs::path& path) { return printable(path.native(), 400); }

// 0 or errno of a look at a name; nothing there, or nothing that may be seen, is ENOENT.
int look(const fs::path& path, bool follow, struct stat& status) {
  if ((follow ? disk::stat(path, status) : disk::lstat(path, status)) == 0) return 0;
  switch (errno) {
    case ENOTDIR:
    case EACCES:
    case ELOOP:
    case ENAMETOOLONG:
      return ENOENT;
    default:
      return errno;
  }
}

// The mode of what has that name, 0 for nothing.
mode_t mode_of(const fs::path& path, bool follow) {
  struct stat status {};
  const int error = look(path, follow, status);
  if (error != 0 && error != ENOENT) {
    fail_disk("files", "{} cannot be looked up: {}", name_of(path), error_text(error));
  }
  return error == 0 ? status.st_mode : 0;
}

Descriptor open_directory(const fs::path& path) {
  return Descriptor(disk::open(path, O_RDONLY | O_DIRECTORY));
}

[[noreturn]] void fail_listing(const fs::path& directory, std::string_view stage) {
  fail_disk(stage, "{} cannot be read: {}", name_of(directory), error_text(errno));
}

void add_files(const fs::path& directory, const std::string& below, std::string_view stage,
               std::vector<std::string>& files) {
  for (const std::string& name : names_in(directory, stage)) {
    if (S_ISDIR(mode_of(directory / name, false))) {
      add_files(directory / name, below + name + "/", stage, files);
    } else {
      files.push_back(below + name);
    }
  }
}

int empty_directory(int directory);

// Removes a name of an open directory, with what is below it.
int remove_at(int directory, const std::string& name) {
  if (disk::unlink_at(directory, name) == 0 || errno == ENOENT) return 0;
  const int refused = errno;
  // EISDIR is Linux's answer for a directory, EPERM that of POSIX.
  if (refused != EISDIR && refused != EPERM) return refused;
  const Descriptor inner(disk::open_at(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  if (inner.get() < 0) return errno == ENOTDIR ? refused : errno;
  if (const int error = empty_directory(inner.get()); error != 0) return error;
  return disk::remove_directory_at(directory, name) == 0 ? 0 : errno;
}

int empty_directory(int directory) {
  std::vector<std::string> names;
  if (disk::list(directory, names) != 0) return errno;
  for (const std::string& name : names) {
    if (const int error = remove_at(directory, name); error != 0) return error;
  }
  return 0;
}

}  // namespace

bool stands(const fs::path& path) { return mode_of(path, false) != 0; }
bool is_file(const fs::path& path) { return S_ISREG(mode_of(path, true)); }
bool is_folder(const fs::path& path) { return S_ISDIR(mode_of(path, true)); }

bool leads_nowhere(const fs::path& path, fs::path& target) {
  return S_ISLNK(mode_of(path, false)) && mode_of(path, true) == 0 &&
         disk::read_link(path, target) == 0;
}

std::vector<std::string> names_in(const fs::path& directory, std::string_view stage) {
  const Descriptor open = open_directory(directory);
  std::vector<std::string> names;
  if (open.get() < 0 || disk::list(open.get(), names) != 0) fail_listing(directory, stage);
  return names;
}

std::vector<std::string> files_below(const fs::path& directory, std::string_view stage) {
  std::vector<std::string> files;
  add_files(directory, "", stage, files);
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<fs::path> make_directories(const fs::path& path, std::string_view stage) {
  std::vector<fs::path> missing, made;
  for (fs::path at = path.lexically_normal(); !at.empty() && !stands(at); at = at.parent_path()) {
    if (at.has_filename()) missing.push_back(at);
  }
  for (auto it = missing.rbegin(); it != missing.rend(); ++it) {
    if (disk::make_directory(*it) == 0) {
      made.push_back(*it);
    } else if (errno != EEXIST) {
      const int error = errno;
      for (auto back = made.rbegin(); back != made.rend(); ++back) disk::remove_directory(*back);
      fail_disk(stage, "{} cannot be created: {}", name_of(*it), error_text(error));
    }
  }
  return made;
}

int remove_tree(const fs::path& path) {
  const Descriptor parent = open_directory(parent_of(path));
  if (parent.get() < 0) return errno == ENOENT ? 0 : errno;
  return remove_at(parent.get(), path.filename());
}

void sync_tree(const fs::path& directory, std::string_view stage) {
  for (const std::string& name : names_in(directory, stage)) {
    const mode_t mode = mode_of(directory / name, false);
    if (S_ISDIR(mode)) sync_tree(directory / name, stage);
    if (S_ISREG(mode)) sync_path(directory / name, stage);
  }
  sync_path(directory, stage);
}

fs::path parent_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

}  // namespace moue
