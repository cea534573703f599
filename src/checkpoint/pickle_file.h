// A file of torch.save: tensors in the entries of a zip file, told of by a pickle.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "checkpoint/name_table.h"
#include "checkpoint/zip.h"
#include "core/files.h"
#include "moue/safetensors.h"

namespace moue {

/// The CRC of an entry is compared before the first of its bytes is handed out, once.
class PickleFile {
 public:
  /// Throws Error "[pytorch] FILE: ..." for all that is no dict of tensors.
  explicit PickleFile(const std::filesystem::path& file);

  const std::filesystem::path& path() const { return input_.path(); }
  uint64_t size() const { return input_.size(); }
  const std::vector<TensorInfo>& tensors() const { return tensors_; }  ///< in order of offset
  const TensorInfo* find(std::string_view name) const { return names_.find(tensors_, name); }
  /// Bytes of the file that belong to tensors. Safe from several threads.
  void read_at(uint64_t offset, std::span<std::byte> out) const;

 private:
  struct Checked {
    std::once_flag once;
  };
  InputFile input_;
  std::vector<ZipEntry> entries_;  // in order of offset
  std::unique_ptr<Checked[]> checked_;
  std::vector<TensorInfo> tensors_;
  NameTable names_;
};

/// What the first bytes of a file are.
enum class WeightFormat : uint8_t { Safetensors, PyTorch };
/// Throws Error for PyTorch's older forms, with a command that converts them.
WeightFormat format_of(const std::filesystem::path& file);

}  // namespace moue
