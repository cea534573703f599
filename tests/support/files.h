// Trees in tests: copied, and a directory's state for "the source is
// untouched".
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace moue::test {

/// Copies a directory with all below it; files get new inodes, links stay links. The target must
/// not exist.
void copy_tree(const std::filesystem::path& from, const std::filesystem::path& to);

/// What can be seen of a file: who it is, when it was written, what it holds.
struct FileState {
  uint64_t inode = 0;
  int64_t seconds = 0;
  int64_t nanoseconds = 0;
  uint64_t mode = 0;
  uint64_t size = 0;
  std::string content;  ///< SHA-256; a link's target; "directory"
  bool operator==(const FileState&) const = default;
};

/// Every file, link and directory below `directory` by its path relative to it.
std::map<std::string, FileState> snapshot(const std::filesystem::path& directory);

/// The relative paths below a directory, sorted; for "nothing was left behind".
std::string listing(const std::filesystem::path& directory);

}  // namespace moue::test
