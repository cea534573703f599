// The key of a conversion, by which an interrupted one is recognised.
#include "convert/job.h"

#include "core/files.h"
#include "core/sha256.h"
#include "moue/version.h"

#include <fmt/format.h>

#include <span>

namespace moue {
namespace {

class Key {
 public:
  // Each piece is preceded by its length, so that no two sequences of pieces run together.
  void add(std::string_view text) {
    const std::string piece = fmt::format("{}:{}", text.size(), text);
    hash_.update(std::as_bytes(std::span(piece)));
  }
  void add(const std::vector<std::vector<double>>& rows) {
    for (const std::vector<double>& row : rows) {
      add(fmt::format("{}", row.size()));
      hash_.update(std::as_bytes(std::span(row)));
    }
  }
  void add(const std::filesystem::path& directory, const std::string& name) {
    const FileIdentity file = InputFile(directory / name, "convert").identity();
    add(fmt::format("{} {} {}", name, file.size, file.modified_ns));
  }
  std::string hex() { return hash_.hex(); }

 private:
  Sha256 hash_;
};

}  // namespace

std::string job_key(const Job& job, const Statistics* statistics, const ConvertOptions& options) {
  const Checkpoint& source = job.content->source();
  Key key;
  key.add(fmt::format("moue {} {} seed {} shards {} dtype {} layers {} hash {}", kVersion,
                      to_string(job.layout), options.seed, options.shard_size, options.dtype,
                      options.layers, options.hash));
  key.add(options.recipe);
  key.add(job.config->text());
  key.add(statistics == nullptr ? "no statistics" : "statistics");
  if (statistics != nullptr) {
    key.add(statistics->beta);
    key.add(statistics->scale);
    key.add(statistics->correction);
  }
  key.add(source.directory(), source.config_file());
  for (const std::string& name : source.file_names()) key.add(source.directory(), name);
  for (const std::string& name : source.other_files()) key.add(source.directory(), name);
  for (const auto& [name, text] : job.texts) key.add(text);
  return key.hex();
}

}  // namespace moue
