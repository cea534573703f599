// Directory: the files of a result beside its shards, and the ledger of all.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/index.h"
#include "checkpoint/manifest.h"
#include "convert/link.h"
#include "core/staging.h"
#include "moue/checkpoint.h"

namespace moue {

/// A file of the result and what it was made of.
struct ResultFile {
  std::string name;
  std::string from;  ///< the source's file; "" = made here
  std::string how;   ///< "hard link", "copy", "written"
  uint64_t bytes = 0;
  bool weights = false;
};

/// What a layout has done.
struct Result {
  std::vector<ResultFile> files;
  uint64_t read = 0;     ///< bytes of tensors
  uint64_t written = 0;  ///< bytes of files made new or copied
};

class Directory {
 public:
  Directory(const Checkpoint& source, Staging& staging) : source_(source), staging_(staging) {}
  Staging& staging() { return staging_; }

  /// From now on the source's weight files stand in the ledger with their SHA-256.
  void hash_sources(int64_t threads);
  /// Links a shard of the source under a name.
  void link_shard(size_t number, const std::string& name);
  /// A file that is neither weights, index nor config, as an independent copy.
  void carry(const std::string& from, const std::string& to);
  /// A file made here.
  void write(std::string_view name, const std::string& text);
  /// A weight file that stands there, written from the source's files or from none.
  void add_written(const std::string& name, const FileDigest& digest);
  void write_index(const Index& index, uint64_t parameters, uint64_t bytes);
  void write_config(const Config& config);
  /// The source's shards in the ledger, where they were not linked.
  void add_source_shards();
  void set_fate(const std::string& tensor, std::string fate);
  void add_read(uint64_t bytes) { result_.read += bytes; }
  Result finish(const std::string& recipe);

 private:
  std::optional<std::string> hash_of(size_t number) const;
  LinkKind linked(const std::string& from, const std::string& name, uint64_t bytes);
  ManifestFile add_hashed(const std::string& name);

  const Checkpoint& source_;
  Staging& staging_;
  Manifest manifest_;
  Result result_;
  std::vector<std::string> hashes_;  // of the source's weight files, where asked for
};

/// Elements of a tensor.
uint64_t num_elements(std::span<const int64_t> shape);

}  // namespace moue
