// CRC-32 of zip files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace moue {

/// The sum of what `crc` stands for followed by `bytes`; 0 stands for nothing.
uint32_t crc32(uint32_t crc, std::span<const std::byte> bytes);

}  // namespace moue
