// Files read with checks and written whole or not at all.
#pragma once

#include <sys/types.h>

#include <atomic>
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

/// What tells whether a file is still the one it was, and as it was.
struct FileIdentity {
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t modified_ns = 0;  ///< its bytes
  int64_t changed_ns = 0;   ///< its bytes, names, owner or mode
  bool operator==(const FileIdentity&) const = default;
};

/// A regular file open for positioned reads. `stage` (a literal) opens its messages.
class InputFile {
 public:
  /// Follows links. Throws Error for what is missing, forbidden, or no regular file; never blocks.
  InputFile(std::filesystem::path path, std::string_view stage);
  const std::filesystem::path& path() const { return path_; }
  uint64_t size() const { return identity_.size; }            ///< when it was opened
  const FileIdentity& identity() const { return identity_; }  ///< when it was opened
  int descriptor() const { return fd_.get(); }
  /// Fills `out` from `offset`. Throws Error where the file ends before, DiskError where the disk
  /// fails. Safe from several threads.
  void read_at(uint64_t offset, std::span<std::byte> out) const;

 private:
  std::filesystem::path path_;
  std::string_view stage_;
  Descriptor fd_;
  FileIdentity identity_;
};

/// The bytes of a regular file of at most `most` bytes.
std::string read_whole_file(const std::filesystem::path& file, std::string_view stage,
                            uint64_t most = 100'000'000);

/// A file under construction: lies beside its name as ".NAME.moue-partial" until commit(). Not
/// committed means removed. What a killed run left under that name is overwritten; a live one's is
/// refused. Throws DiskError.
class OutputFile {
 public:
  enum class Existing : uint8_t { Refuse, Replace };
  OutputFile(std::filesystem::path path, std::string_view stage, Existing existing);
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile();

  /// Takes the blocks of so many bytes now, so that a full disk is noticed before the first of
  /// them is written; nothing where the file system cannot.
  void reserve(uint64_t bytes);
  /// From now on whole, aligned blocks go past the page cache, where the file system lets them:
  /// twice as fast for what is larger than memory, and nothing piles up behind a slow disk.
  void bypass_cache();
  static constexpr uint64_t kBlock = 4096;  ///< what offset, size and address are aligned to
  /// After what write() and copy_from() wrote last.
  void write(std::span<const std::byte> bytes);
  void copy_from(const InputFile& from, uint64_t offset, uint64_t bytes);
  /// Anywhere, safe from several threads. All pieces together must cover the file, each byte once.
  void write_at(uint64_t offset, std::span<const std::byte> bytes);
  /// Syncs the file, gives it its name, syncs the directory.
  void commit();

 private:
  ssize_t put(uint64_t offset, std::span<const std::byte> bytes);
  void covered(uint64_t end, uint64_t bytes);
  void copy_through_memory(const InputFile& from, uint64_t offset, uint64_t bytes);

  std::filesystem::path path_;
  std::filesystem::path partial_;
  std::string_view stage_;
  Existing existing_;
  Descriptor fd_;
  Descriptor direct_;                      // the same file past the cache; or none
  std::atomic<bool> takes_direct_ = true;  // until it asks for other alignments
  uint64_t next_ = 0;                      // where write() goes on
  std::atomic<uint64_t> end_ = 0;          // of the last byte written
  std::atomic<uint64_t> bytes_ = 0;        // of all pieces
};

/// Replaces or creates a file: temporary file, fsync, rename, fsync of the directory.
void write_file_whole(const std::filesystem::path& file, std::span<const std::byte> bytes);
void write_file_whole(const std::filesystem::path& file, std::string_view text);

/// Makes `to`, which must not exist, an independent copy.
void copy_file_whole(const std::filesystem::path& from, const std::filesystem::path& to,
                     std::string_view stage);

/// Writes text at the end of a file open for appending. Throws DiskError.
void append(const Descriptor& file, std::string_view text, const std::filesystem::path& path,
            std::string_view stage);

/// ".NAME.moue-partial" beside `target`; "out/" and "out" are one target.
std::filesystem::path partial_path(const std::filesystem::path& target);

/// Throws DiskError where the file system of `directory` (or its nearest existing parent) has fewer
/// free bytes.
void require_space(const std::filesystem::path& directory, uint64_t bytes);

struct Reservation {
  std::string name;
  uint64_t bytes = 0;
};

/// Takes the blocks of files that OutputFiles in this directory will then fill. Throws DiskError
/// where they do not all fit, having given back those taken; nothing where the file system cannot.
void reserve_files(const std::filesystem::path& directory, std::span<const Reservation> files);

/// fsync of a file or directory.
void sync_path(const std::filesystem::path& path, std::string_view stage);

/// Gives a finished file its name, in place of what has it, and syncs the directory; removes it
/// where it cannot.
void replace_file(const std::filesystem::path& from, const std::filesystem::path& to,
                  std::string_view stage);

/// Renames, refusing to replace what exists. Throws Error.
void rename_new(const std::filesystem::path& from, const std::filesystem::path& to,
                std::string_view stage);

/// True for the errno of a file system that lacks an operation, or has it not between these two
/// files: not of one that fails.
bool is_unable(int error);

/// True where this process now holds `path`, open as `fd`, alone: it is locked until `fd` closes
/// and still has that name.
bool lock_partial(const Descriptor& fd, const std::filesystem::path& path);

}  // namespace moue
