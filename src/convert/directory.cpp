// Directory: the files of a result beside its shards, and the ledger of all.
#include "convert/directory.h"

#include "convert/hashes.h"
#include "core/files.h"
#include "core/sha256.h"
#include "core/stop.h"
#include "moue/log.h"
#include "moue/version.h"

#include <functional>
#include <numeric>

namespace moue {

void Directory::hash_sources(int64_t threads) {
  std::vector<std::filesystem::path> files;
  for (const std::string& name : source_.file_names()) files.push_back(source_.directory() / name);
  hashes_ = hashes_of(files, threads);
}

std::optional<std::string> Directory::hash_of(size_t number) const {
  return hashes_.empty() ? std::nullopt : std::optional(hashes_[number]);
}

void Directory::link_shard(size_t number, const std::string& name) {
  stop_if_asked("convert");
  const std::string& from = source_.file_names()[number];
  const uint64_t bytes = source_.files()[number].size();
  const LinkKind how = linked(from, name, bytes);
  log_line("convert", "{}: {} of the source's {}", name, to_string(how), from);
  result_.files.push_back({name, from, std::string(to_string(how)), bytes, true});
  manifest_.files.push_back({name, bytes, hash_of(number)});
  manifest_.source_files.push_back({from, bytes, hash_of(number)});
}

// Links cost nothing and are made anew; a copy that an earlier run completed stays.
LinkKind Directory::linked(const std::string& from, const std::string& name, uint64_t bytes) {
  if (staging_.has(name)) return LinkKind::Copy;
  const LinkKind how = link_file(source_.directory() / from, staging_.path() / name);
  if (how == LinkKind::Copy) {
    staging_.done(name, {bytes, ""});
    result_.read += bytes;
    result_.written += bytes;
  }
  return how;
}

void Directory::carry(const std::string& from, const std::string& to) {
  const LinkKind how = clone_file(source_.directory() / from, staging_.path() / to);
  const ManifestFile listed = add_hashed(to);
  result_.files.push_back({to, from, std::string(to_string(how)), listed.size, false});
  manifest_.source_files.push_back({from, listed.size, listed.sha256});
}

void Directory::add_written(const std::string& name, const FileDigest& digest) {
  manifest_.files.push_back({name, digest.bytes, digest.sha256});
  const bool is_kept = staging_.has(name).has_value();
  result_.files.push_back({name, "", is_kept ? "kept" : "written", digest.bytes, true});
  if (!is_kept) result_.written += digest.bytes;
}

void Directory::write_index(const Index& index, uint64_t parameters, uint64_t bytes) {
  write(kIndexFile, index_text(index, parameters, bytes));
}

void Directory::write_config(const Config& config) {
  const std::filesystem::path file = source_.directory() / source_.config_file();
  manifest_.source_files.push_back(
      {source_.config_file(), InputFile(file, "convert").size(), sha256_of_file(file)});
  write("config.json", config.text());
}

void Directory::add_source_shards() {
  for (size_t i = 0; i < source_.files().size(); ++i) {
    manifest_.source_files.push_back(
        {source_.file_names()[i], source_.files()[i].size(), hash_of(i)});
  }
}

void Directory::set_fate(const std::string& tensor, std::string fate) {
  manifest_.tensors[tensor] = std::move(fate);
}

Result Directory::finish(const std::string& recipe) {
  manifest_.tool = fmt::format("moue {}", kVersion);
  manifest_.recipe = recipe;
  write_manifest(staging_.path(), manifest_);
  result_.written += InputFile(staging_.path() / kManifestFile, "convert").size();
  return std::move(result_);
}

void Directory::write(std::string_view name, const std::string& text) {
  write_file_whole(staging_.path() / name, text);
  add_hashed(std::string(name));
}

ManifestFile Directory::add_hashed(const std::string& name) {
  const uint64_t bytes = InputFile(staging_.path() / name, "convert").size();
  manifest_.files.push_back({name, bytes, sha256_of_file(staging_.path() / name)});
  result_.written += bytes;
  return manifest_.files.back();
}

uint64_t num_elements(std::span<const int64_t> shape) {
  return std::accumulate(shape.begin(), shape.end(), uint64_t{1}, std::multiplies<uint64_t>());
}

}  // namespace moue
