// Trees in tests.
#include "support/files.h"

#include "core/sha256.h"

#include <sys/stat.h>

#include <stdexcept>

namespace moue::test {
namespace fs = std::filesystem;

void copy_tree(const fs::path& from, const fs::path& to) {
  if (fs::exists(to)) throw std::runtime_error(to.native() + " exists");
  fs::create_directories(to.parent_path());
  fs::copy(from, to, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
}

std::map<std::string, FileState> snapshot(const fs::path& directory) {
  std::map<std::string, FileState> states;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    struct stat status {};
    if (::lstat(entry.path().c_str(), &status) != 0) {
      throw std::runtime_error("cannot stat " + entry.path().native());
    }
    FileState state{status.st_ino,
                    status.st_mtim.tv_sec,
                    status.st_mtim.tv_nsec,
                    status.st_mode,
                    static_cast<uint64_t>(status.st_size),
                    "directory"};
    if (entry.is_symlink()) {
      state.content = "link to " + fs::read_symlink(entry.path()).native();
    } else if (entry.is_regular_file()) {
      state.content = sha256_of_file(entry.path());
    }
    states[entry.path().lexically_relative(directory).native()] = state;
  }
  return states;
}

std::string listing(const fs::path& directory) {
  std::string text;
  for (const auto& [name, state] : snapshot(directory)) text += name + "\n";
  return text;
}

}  // namespace moue::test
