// What the fuzz targets share: an input as a file, and the one way in which it may be refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "moue/error.h"

namespace moue::fuzz {

/// The bytes as a file of this process, without a disk: the same file again and again.
std::filesystem::path as_file(std::string_view bytes);

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Input may be read or refused by Error; any other exception ends the run.
template <class Read>
int attempt(Read read) {
  try {
    read();
  } catch (const Error&) {
  }
  return 0;
}

/// A property that holds for every input that is read.
void require(bool holds, const char* what);

}  // namespace moue::fuzz
