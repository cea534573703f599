// Pass one: which file holds which tensor, and every header, before a byte is read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "convert/content.h"

namespace moue {

/// A weight file to be written: header, then parts [first, first + count) of the content.
struct Shard {
  std::string name;
  std::string header;
  size_t first = 0, count = 0;
  uint64_t bytes = 0;  ///< of the file
};

/// Parts [first, last) as STEM-00001-of-00002.safetensors and so on, each of at most `most` bytes
/// or of one tensor, with page-aligned data.
std::vector<Shard> shards_of(const Content& content, size_t first, size_t last, uint64_t most,
                             const std::string& stem);
/// The same as one file.
Shard shard_of(const Content& content, size_t first, size_t last, std::string name);

/// Bytes of such a file from `from` on.
void read_shard(const Content& content, const Shard& shard, uint64_t from,
                std::span<std::byte> out);

}  // namespace moue
