// How a result lies on disk, and the writing of it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "convert/card.h"
#include "convert/directory.h"
#include "convert/shards.h"
#include "convert/stream.h"

namespace moue {

enum class Layout : uint8_t {
  Linked,  ///< the source's shards themselves, and new files for new tensors
  Packed,  ///< everything written anew, in reading order
  Export,  ///< the same under the ordinary names of the source's family, without a pool
};
std::string_view to_string(Layout layout);
Layout layout_of(std::string_view name);  ///< throws Error listing the layouts

/// Names of the new files beside linked shards.
constexpr const char* kNewFile = "model-moue.safetensors";
constexpr const char* kExpertFiles = "model-moue-experts";
/// What a shard of the source is called beside new files: a single one must not keep its name, or
/// readers would take it and leave the index aside.
std::string linked_name(const std::string& source_name);

/// All that is decided before the first byte is written.
struct Job {
  std::shared_ptr<const Content> content;
  Layout layout = Layout::Linked;
  std::vector<Shard> shards;  ///< to be written
  std::optional<Config> config;
  std::vector<Carried> others;               ///< files that are carried along
  std::map<std::string, std::string> texts;  ///< files that are made, by name: card, picture
  StreamOptions stream;
  bool hash = false;  ///< the source's weight files, for the manifest
};

/// Cuts the content into files.
std::vector<Shard> shards_for(const Content& content, Layout layout, uint64_t shard_size);

/// Bytes that will be written at least, and those of tensors that will be read for them.
uint64_t bytes_to_write(const Job& job);
uint64_t bytes_to_read(const Job& job);

/// Fills a staging directory, manifest included.
Result write_result(const Job& job, const std::string& recipe, Staging& staging);

}  // namespace moue
