// One safetensors file: strict lazy reader and writer. Format of safetensors 0.8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "moue/digest.h"

namespace moue {

/// Element types of the format, in its own order of size.
enum class Dtype : uint8_t {
  Bool,
  F4,
  F6E2M3,
  F6E3M2,
  U8,
  I8,
  F8E5M2,
  F8E4M3,
  F8E8M0,
  F8E4M3FNUZ,
  F8E5M2FNUZ,
  I16,
  U16,
  F16,
  BF16,
  I32,
  U32,
  F32,
  C64,
  F64,
  I64,
  U64,
};

std::string_view dtype_name(Dtype dtype);              ///< as in the file: "BF16"
std::optional<Dtype> dtype_of(std::string_view name);  ///< nothing for a name the format lacks
int dtype_bits(Dtype dtype);

/// "[5, 24]", as messages show a shape.
std::string shape_text(std::span<const int64_t> shape);

/// How the elements of a tensor lie where that is not row by row: seen in `shape`, which may have
/// more dimensions than the tensor, steps of so many elements.
struct Strided {
  std::vector<int64_t> shape, strides;
};

/// Where a tensor lies, little-endian.
struct TensorInfo {
  std::string name;
  Dtype dtype = Dtype::F32;
  std::vector<int64_t> shape;
  uint32_t file = 0;    ///< index into Checkpoint::files(); 0 in a single file
  uint64_t offset = 0;  ///< of its first byte, from the start of the file
  uint64_t bytes = 0;
  /// Nothing: row-major, bytes [offset, offset + bytes) of its file.
  std::shared_ptr<const Strided> strided = nullptr;
};

/// A file whose header has been read and checked; tensor bytes are read on demand.
class SafetensorsFile {
 public:
  /// Throws Error "[safetensors] FILE ..." for each rule of the format the file breaks.
  explicit SafetensorsFile(const std::filesystem::path& file);

  const std::filesystem::path& path() const;
  uint64_t size() const;                           ///< bytes of the whole file
  uint64_t data_offset() const;                    ///< where tensor data starts
  const std::vector<TensorInfo>& tensors() const;  ///< in order of offset
  const std::map<std::string, std::string>& metadata() const;
  const TensorInfo* find(std::string_view name) const;
  const TensorInfo& at(std::string_view name) const;  ///< throws Error naming file and tensor

  /// Fills `out` from byte `from` of the tensor by positioned reads; safe from several threads.
  /// Throws Error where the file has shrunk meanwhile.
  void read(const TensorInfo& tensor, uint64_t from, std::span<std::byte> out) const;
  std::vector<std::byte> read(const TensorInfo& tensor) const;
  /// Bytes of the file by position.
  void read_at(uint64_t offset, std::span<std::byte> out) const;
  /// The values of a float tensor (F64, F32, F16, BF16) or integer tensor as double.
  std::vector<double> values(std::string_view name) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

/// A tensor to be written; the bytes are borrowed.
struct TensorView {
  std::string name;
  Dtype dtype = Dtype::F32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

/// Writes tensors in the given order with an aligned data start, and syncs the file. The file must
/// not exist. The same input gives the same bytes. Throws Error naming the file (disk full, bad
/// path).
FileDigest write_safetensors(const std::filesystem::path& file, std::span<const TensorView> tensors,
                             const std::map<std::string, std::string>& metadata = {
                                 {"format", "pt"}});

/// A tensor to be written piece by piece: `read` gives its bytes from `from` on, in order.
struct TensorStream {
  std::string name;
  Dtype dtype = Dtype::F32;
  std::vector<int64_t> shape;
  std::function<void(uint64_t from, std::span<std::byte> out)> read;
};

/// The same file, with a few MB in memory at a time: `read` is asked for whole rows, indices of the
/// first dimension.
FileDigest stream_safetensors(const std::filesystem::path& file,
                              std::span<const TensorStream> tensors);

}  // namespace moue
