// TensorBoard's event files: records of TFRecord, each an Event message that holds scalars.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/files.h"

namespace moue {

/// A point of the curve `tag`; TensorBoard keeps float32. The part before a slash groups curves.
struct Scalar {
  std::string tag;
  double value = 0;
};

/// CRC-32C (Castagnoli).
uint32_t crc32c(std::string_view bytes);

/// One record: length, its sum, data, its sum.
std::string tf_record(std::string_view data);

// Event messages, serialised. `wall_time`: seconds since 1970.
std::string version_event(double wall_time);
/// A run begins or goes on at `step`: readers drop what older files say of it and later steps.
std::string start_event(double wall_time, int64_t step);
std::string scalar_event(double wall_time, int64_t step, std::span<const Scalar> scalars);

/// A new file in `directory`, which is made; its name sorts behind those of older ones, so that a
/// resumed run goes on where they end. Nothing is kept back in memory. Throws DiskError.
class EventFile {
 public:
  EventFile(const std::filesystem::path& directory, int64_t first_step);
  void add(int64_t step, std::span<const Scalar> scalars);

 private:
  std::filesystem::path path_;
  Descriptor fd_;
};

}  // namespace moue
