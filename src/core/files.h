// Files read with checks and written whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moue {

/// An open file descriptor, closed with its owner; -1 is none.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor() { reset(); }
  int get() const { return fd_; }
  int release();
  void reset();

 private:
  int fd_;
};

/// A regular file open for positioned reads. `stage` (a literal) opens its messages.
class InputFile {
 public:
  /// Follows links. Throws Error for what is missing, forbidden, or no regular file; never blocks.
  InputFile(std::filesystem::path path, std::string_view stage);
  const std::filesystem::path& path() const { return path_; }
  uint64_t size() const { return size_; }  ///< when it was opened
  /// Fills `out` from `offset`. Throws Error where the file ends before. Safe from several threads.
  void read_at(uint64_t offset, std::span<std::byte> out) const;

 private:
  std::filesystem::path path_;
  std::string_view stage_;
  Descriptor fd_;
  uint64_t size_ = 0;
};

/// The bytes of a regular file of at most `most` bytes.
std::string read_whole_file(const std::filesystem::path& file, std::string_view stage,
                            uint64_t most = 100'000'000);

/// A file under construction: lies beside its name as ".NAME.moue-partial" until commit(). Not
/// committed means removed. What a killed run left under that name is overwritten; a live one's is
/// refused.
class OutputFile {
 public:
  enum class Existing : uint8_t { Refuse, Replace };
  OutputFile(std::filesystem::path path, std::string_view stage, Existing existing);
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile();
  void write(std::span<const std::byte> bytes);
  /// Syncs the file, gives it its name, syncs the directory.
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path partial_;
  std::string_view stage_;
  Existing existing_;
  Descriptor fd_;
  uint64_t written_ = 0;
};

/// Replaces or creates a file: temporary file, fsync, rename, fsync of the directory.
void write_file_whole(const std::filesystem::path& file, std::span<const std::byte> bytes);
void write_file_whole(const std::filesystem::path& file, std::string_view text);

/// A directory under construction: lies beside its target as ".NAME.moue-partial" until commit(). A
/// stale one is removed at the start, and said so in the log. Not committed means removed, with the
/// parents it made.
class Staging {
 public:
  /// Throws Error where the target exists, in any form, or another process is making it.
  explicit Staging(std::filesystem::path target);
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging();
  const std::filesystem::path& path() const { return partial_; }
  const std::filesystem::path& target() const { return target_; }
  /// Syncs every file and directory, renames, syncs the parent. Refuses a target that appeared
  /// meanwhile.
  void commit();

 private:
  void make_parents();
  void take();

  std::filesystem::path target_;
  std::filesystem::path partial_;
  std::vector<std::filesystem::path> made_parents_;  // outermost first
  Descriptor lock_;
};

/// ".NAME.moue-partial" beside `target`; "out/" and "out" are one target.
std::filesystem::path partial_path(const std::filesystem::path& target);

/// Throws Error where the file system of `directory` (or its nearest existing parent) has fewer
/// free bytes.
void require_space(const std::filesystem::path& directory, uint64_t bytes);

/// fsync of a file or directory.
void sync_path(const std::filesystem::path& path, std::string_view stage);

/// Renames, refusing to replace what exists. Throws Error.
void rename_new(const std::filesystem::path& from, const std::filesystem::path& to,
                std::string_view stage);

/// True where this process now holds `path`, open as `fd`, alone: it is locked and still has that
/// name.
bool lock_partial(const Descriptor& fd, const std::filesystem::path& path);

}  // namespace moue
