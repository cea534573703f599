// Streams files of known size to disk: several threads, memory of a fixed size, hashed on the way.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/staging.h"

namespace moue {

/// A file to be made. `fill` gives its bytes from `from` on, in any order, on several threads.
struct StreamedFile {
  std::string name;
  uint64_t bytes = 0;
  std::function<void(uint64_t from, std::span<std::byte> out)> fill;
};

struct StreamOptions {
  int64_t threads = 0;                  ///< 0 = as many as the machine has cores, and as many again
  uint64_t memory = uint64_t{1} << 30;  ///< of all buffers together, `scratch` included
  uint64_t scratch = 0;                 ///< what `fill` takes besides
  std::function<void(uint64_t)> written;  ///< told how many bytes more are in place; any thread
};

/// How the memory is cut.
struct StreamBuffers {
  uint64_t chunk = 0;  ///< bytes of a buffer
  int64_t count = 0;
  uint64_t bytes() const { return chunk * static_cast<uint64_t>(count); }
};
int64_t threads_for(int64_t asked);
/// Throws Error where the memory holds no buffer for every thread.
StreamBuffers buffers_for(const StreamOptions& options);

/// Reserves space for all files, then writes those that no earlier run completed; digests in their
/// order. The same files give the same bytes whatever the threads and memory. Throws what `fill`
/// throws, DiskError naming the file, Interrupted where a signal asks.
std::vector<FileDigest> stream_files(Staging& staging, std::span<const StreamedFile> files,
                                     const StreamOptions& options);

}  // namespace moue
