// The layout "linked": the source's shards themselves, one new file, a new index and config.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "convert/link.h"
#include "convert/values.h"
#include "core/staging.h"
#include "moue/checkpoint.h"
#include "moue/pool.h"
#include "pool/new_experts.h"

namespace moue {

constexpr const char* kNewFile = "model-moue.safetensors";
/// New experts lie in model-moue-experts-00001-of-00002.safetensors and so on.
constexpr const char* kExpertFiles = "model-moue-experts";

/// A file of the source and what stands for it in the result.
struct LinkedFile {
  std::string name;  ///< in the result
  std::string from;  ///< in the source
  LinkKind how = LinkKind::Copy;
  uint64_t bytes = 0;
  bool weights = false;
};

struct Linked {
  std::vector<LinkedFile> files;
  uint64_t written = 0;  ///< bytes of files made new or copied
};

/// Throws Error where the source is a MoUE already or has files whose names the result needs.
void check_names(const Checkpoint& source);

/// Bytes that will be written at least: the new tensors, copies of small files, index and config.
uint64_t bytes_to_write(const Checkpoint& source, const Pool& pool, const ModelSpec& spec,
                        std::span<const NewTensor> experts);

/// Fills a staging directory, manifest included. `values` are those of pool_tensors(pool, spec), in
/// its order; `experts` are streamed from the source.
Linked write_linked(const Checkpoint& source, const Pool& pool, const ModelSpec& spec,
                    const std::vector<MakeValues>& values, std::span<const NewTensor> experts,
                    const std::string& recipe, Staging& staging);

}  // namespace moue
