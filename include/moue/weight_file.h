// WeightFile: a file of tensors in any form that is read: safetensors, or a zip file of torch.save.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "moue/safetensors.h"

namespace moue {

/// Its form is told by its content. Copies share one state.
class WeightFile {
 public:
  /// Throws Error for each rule of its form that the file breaks.
  explicit WeightFile(const std::filesystem::path& file);

  const std::filesystem::path& path() const;
  uint64_t size() const;  ///< bytes of the whole file
  bool is_safetensors() const;
  const std::vector<TensorInfo>& tensors() const;  ///< in order of offset
  const TensorInfo* find(std::string_view name) const;
  const TensorInfo& at(std::string_view name) const;  ///< throws Error naming file and tensor

  /// Fills `out` from byte `from` of the tensor, row-major however it lies; the tensor may be a
  /// part of one of the file's. Safe from several threads. Throws Error where the file has shrunk
  /// or is damaged.
  void read(const TensorInfo& tensor, uint64_t from, std::span<std::byte> out) const;
  std::vector<std::byte> read(const TensorInfo& tensor) const;
  /// The values of a float tensor (F64, F32, F16, BF16) or integer tensor as double.
  std::vector<double> values(const TensorInfo& tensor) const;
  std::vector<double> values(std::string_view name) const { return values(at(name)); }

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace moue
