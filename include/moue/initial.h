// initial: writes a model that was never trained, as a directory that every verb reads.
#pragma once

#include <cstdint>
#include <filesystem>

#include "moue/checkpoint.h"
#include "moue/report.h"

namespace moue {

struct InitialOptions {
  int64_t seed = 0;                     ///< decides the weights, with each tensor's name
  uint64_t shard_size = 5'000'000'000;  ///< bytes of tensors in a file, of one tensor at least
};

/// `config` is an ordinary model's config.json, or a directory with one, whose other files (but
/// weights and README.md) are carried along. Writes `out` whole or not at all: each number of a
/// matrix is a function of seed, tensor name and place, with the config's initializer_range (0.02
/// where it has none); in the config's dtype (float32 where it has none). Where `out` stands
/// already it must be what would be written. Throws Error.
Report write_initial(const std::filesystem::path& config, const std::filesystem::path& out,
                     const InitialOptions& options);

/// The model that write_initial() would make: names, shapes and config without files, for what
/// reads headers alone.
Checkpoint initial_headers(const std::filesystem::path& config);

}  // namespace moue
