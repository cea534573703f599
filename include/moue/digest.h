// FileDigest: how long a file is and what it holds.
#pragma once

#include <cstdint>
#include <string>

namespace moue {

struct FileDigest {
  uint64_t bytes = 0;
  std::string sha256;  ///< 64 lower-case hexadecimal digits
};

}  // namespace moue
