// A zip file as PyTorch writes it: entries stored plainly, one behind the other, zip64 where large.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/files.h"

namespace moue {

struct ZipEntry {
  std::string name;
  uint64_t offset = 0;  ///< of its data, from the start of the file
  uint64_t size = 0;
  uint32_t crc = 0;  ///< as the file states it; nobody has compared it yet
};

/// In order of offset. Entries fill the file exactly: whatever is compressed, encrypted, twice
/// there, overlapping, hidden between entries or told differently in two places throws Error
/// "[pytorch] FILE: ...".
std::vector<ZipEntry> read_zip(const InputFile& file);

/// Reads an entry and compares its sum. Throws Error.
void check_crc(const InputFile& file, const ZipEntry& entry);

}  // namespace moue
