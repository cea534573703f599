// OutputFile: written beside its name, reserved, synced, then renamed.
#include "core/disk.h"
#include "core/files.h"
#include "core/text.h"
#include "core/tree.h"
#include "moue/error.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>

namespace moue {
namespace fs = std::filesystem;
namespace {

std::string name_of(const fs::path& path) { return printable(path.native(), 400); }

Descriptor open_partial(const fs::path& partial) {
  return Descriptor(disk::open(partial, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK));
}

bool is_ours_alone(const Descriptor& fd, const fs::path& path) {
  struct stat status {};
  if (disk::fstat(fd.get(), status) != 0) {
    fail_disk("files", "{} cannot be looked up: {}", name_of(path), error_text(errno));
  }
  return S_ISREG(status.st_mode) && status.st_nlink == 1;
}

}  // namespace

OutputFile::OutputFile(fs::path path, std::string_view stage, Existing existing)
    : path_(std::move(path)), partial_(partial_path(path_)), stage_(stage), existing_(existing) {
  if (existing_ == Existing::Refuse && stands(path_)) {
    fail(stage_, "{} exists, wanted a new file; remove it or choose another name", name_of(path_));
  }
  Descriptor fd = open_partial(partial_);
  if (fd.get() < 0) {
    fail_disk(stage_, "{} cannot be created: {}", name_of(path_), error_text(errno));
  }
  if (!lock_partial(fd, partial_)) {
    fail(stage_, "{} is being written by another process", name_of(path_));
  }
  if (!is_ours_alone(fd, partial_)) {
    fail(stage_, "{} is in the way of {}; remove it", name_of(partial_), name_of(path_));
  }
  fd_ = std::move(fd);
}

OutputFile::~OutputFile() {
  if (fd_.get() >= 0) disk::unlink(partial_);
}

void OutputFile::reserve(uint64_t bytes) {
  if (bytes == 0 || disk::reserve(fd_.get(), bytes) == 0 || is_unable(errno)) return;
  fail_disk(stage_, "{} needs {}, which the disk does not give: {}; nothing of it was kept",
            name_of(path_), mib_text(bytes), error_text(errno));
}

void OutputFile::covered(uint64_t end, uint64_t bytes) {
  bytes_ += bytes;
  uint64_t known = end_;
  while (known < end && !end_.compare_exchange_weak(known, end)) continue;
}

void OutputFile::write(std::span<const std::byte> bytes) {
  write_at(next_, bytes);
  next_ += bytes.size();
}

void OutputFile::bypass_cache() {
  direct_ = Descriptor(disk::open(partial_, O_WRONLY | O_NOFOLLOW | O_DIRECT));
}

// Writes some of the bytes, at least one.
ssize_t OutputFile::put(uint64_t offset, std::span<const std::byte> bytes) {
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  const size_t whole = bytes.size() / kBlock * kBlock;
  if (direct_.get() >= 0 && takes_direct_ && whole > 0 && (offset | address) % kBlock == 0) {
    const ssize_t done = disk::pwrite(direct_.get(), bytes.data(), whole, offset);
    if (done >= 0 || errno != EINVAL) return done;
    takes_direct_ = false;
  }
  return disk::pwrite(fd_.get(), bytes.data(), bytes.size(), offset);
}

void OutputFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t put = this->put(offset + done, bytes.subspan(done));
    if (put < 0) {
      fail_disk(stage_, "{} could not be written after {}: {}; nothing of it was kept",
                name_of(path_), mib_text(offset + done), error_text(errno));
    }
    done += static_cast<size_t>(put);
  }
  covered(offset + bytes.size(), bytes.size());
}

void OutputFile::copy_from(const InputFile& from, uint64_t offset, uint64_t bytes) {
  while (bytes > 0) {
    const ssize_t put = disk::copy_range(from.descriptor(), offset, fd_.get(), next_, bytes);
    if (put == 0 || (put < 0 && is_unable(errno))) {
      return copy_through_memory(from, offset, bytes);
    }
    if (put < 0) {
      fail_disk(stage_, "{} could not be copied to {} after {}: {}; nothing of it was kept",
                name_of(from.path()), name_of(path_), mib_text(next_), error_text(errno));
    }
    const auto done = static_cast<uint64_t>(put);
    next_ += done, offset += done, bytes -= done;
    covered(next_, done);
  }
}

void OutputFile::copy_through_memory(const InputFile& from, uint64_t offset, uint64_t bytes) {
  std::vector<std::byte> buffer(std::min<uint64_t>(bytes, uint64_t{1} << 20));
  while (bytes > 0) {
    const auto part = std::span(buffer).first(std::min<uint64_t>(buffer.size(), bytes));
    from.read_at(offset, part);
    write(part);
    offset += part.size(), bytes -= part.size();
  }
}

void OutputFile::commit() {
  if (bytes_ != end_) throw std::logic_error("OutputFile: pieces overlap or leave a hole");
  struct stat status {};
  // Longer: what was reserved too much, or left by a run that was killed.
  if (disk::fstat(fd_.get(), status) != 0 ||
      (static_cast<uint64_t>(status.st_size) != end_ && disk::resize(fd_.get(), end_) != 0) ||
      disk::sync(fd_.get()) != 0) {
    fail_disk(stage_, "{} could not be brought to disk: {}; nothing of it was kept", name_of(path_),
              error_text(errno));
  }
  if (existing_ == Existing::Refuse) {
    rename_new(partial_, path_, stage_);
  } else if (disk::rename(partial_, path_) != 0) {
    fail_disk(stage_, "{} cannot be put in place: {}", name_of(path_), error_text(errno));
  }
  fd_.reset();
  direct_.reset();
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

void append(const Descriptor& file, std::string_view text, const fs::path& path,
            std::string_view stage) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t put = disk::write(file.get(), text.data() + done, text.size() - done);
    if (put < 0) {
      fail_disk(stage, "{} could not be written: {}", name_of(path), error_text(errno));
    }
    done += static_cast<size_t>(put);
  }
}

void copy_file_whole(const fs::path& from, const fs::path& to, std::string_view stage) {
  const InputFile source(from, stage);
  OutputFile target(to, stage, OutputFile::Existing::Refuse);
  target.reserve(source.size());
  target.copy_from(source, 0, source.size());
  target.commit();
}

void reserve_files(const fs::path& directory, std::span<const Reservation> files) {
  for (size_t i = 0; i < files.size(); ++i) {
    if (files[i].bytes == 0) continue;
    const Descriptor fd = open_partial(partial_path(directory / files[i].name));
    if (fd.get() >= 0 && disk::reserve(fd.get(), files[i].bytes) == 0) continue;
    const int error = errno;
    if (fd.get() >= 0 && is_unable(error)) return;
    uint64_t bytes = 0;
    for (const Reservation& file : files) bytes += file.bytes;
    for (size_t made = 0; made <= i; ++made) {
      disk::unlink(partial_path(directory / files[made].name));
    }
    fail_disk("files", "{} does not take {}: {}; free some space or write to another disk",
              name_of(directory), mib_text(bytes), error_text(error));
  }
}

}  // namespace moue
