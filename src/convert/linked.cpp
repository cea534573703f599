// Writes the layout "linked" into an empty directory.
#include "convert/linked.h"

#include "checkpoint/index.h"
#include "checkpoint/manifest.h"
#include "core/files.h"
#include "core/sha256.h"
#include "core/stop.h"
#include "core/text.h"
#include "moue/error.h"
#include "moue/log.h"
#include "moue/version.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <set>

namespace moue {

namespace fs = std::filesystem;

namespace {

// A single file must not keep its name: readers would take it and leave the index aside.
constexpr const char* kOnlyShard = "model-00001-of-00001.safetensors";
constexpr uint64_t kShardBytes = uint64_t{5} << 30;

std::string shard_name(const std::string& source_name) {
  return source_name == kSingleFile ? kOnlyShard : source_name;
}

uint64_t elements(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), uint64_t{1}, std::multiplies<uint64_t>());
}

// Cut into shards of at most kShardBytes, or of one tensor.
std::vector<std::span<const NewTensor>> shards_of(std::span<const NewTensor> tensors) {
  std::vector<std::span<const NewTensor>> shards;
  uint64_t bytes = 0;
  size_t first = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (i > first && bytes + tensors[i].bytes() > kShardBytes) {
      shards.push_back(tensors.subspan(first, i - first));
      first = i;
      bytes = 0;
    }
    bytes += tensors[i].bytes();
  }
  if (first < tensors.size()) shards.push_back(tensors.subspan(first));
  return shards;
}

uint64_t total_bytes(std::span<const NewTensor> tensors) {
  uint64_t bytes = 0;
  for (const NewTensor& tensor : tensors) bytes += tensor.bytes();
  return bytes;
}

class Writer {
 public:
  Writer(const Checkpoint& source, Staging& staging)
      : source_(source), staging_(staging), directory_(staging.path()) {}

  void reserve(const std::vector<PoolTensor>& tensors, std::span<const NewTensor> experts) const {
    std::vector<Reservation> files = {{kNewFile, 0}};
    for (const PoolTensor& tensor : tensors)
      files[0].bytes += elements(tensor.shape) * sizeof(float);
    const auto shards = shards_of(experts);
    for (size_t i = 0; i < shards.size(); ++i) {
      files.push_back({expert_file(i, shards.size()), total_bytes(shards[i])});
    }
    std::erase_if(files, [&](const Reservation& file) { return staging_.has(file.name); });
    reserve_files(directory_, files);
  }

  void link_shards() {
    for (size_t i = 0; i < source_.files().size(); ++i) {
      const std::string& from = source_.file_names()[i];
      const std::string name = shard_name(from);
      const uint64_t bytes = source_.files()[i].size();
      stop_if_asked("convert");
      const LinkKind how = linked(from, name, bytes);
      log_line("convert", "{}: {} of the source's {}", name, to_string(how), from);
      result_.files.push_back({name, from, how, bytes, true});
      manifest_.files.push_back({name, bytes, {}});
      manifest_.source_files.push_back({from, bytes, {}});
    }
    for (const TensorInfo& tensor : source_.tensors()) {
      manifest_.tensors[tensor.name] = "linked " + shard_name(source_.file_names()[tensor.file]);
    }
  }

  void copy_others() {
    for (const std::string& name : source_.other_files()) {
      const LinkKind how = clone_file(source_.directory() / name, directory_ / name);
      const ManifestFile listed = add_hashed(name);
      result_.files.push_back({name, name, how, listed.size, false});
      manifest_.source_files.push_back(listed);
    }
  }

  void write_pool(const std::vector<PoolTensor>& tensors, const std::vector<MakeValues>& make) {
    std::vector<TensorStream> streams;
    std::vector<float> values;  // of the tensor whose turn it is
    for (size_t i = 0; i < tensors.size(); ++i) {
      streams.push_back({tensors[i].name, Dtype::F32, tensors[i].shape,
                         [&values, &make = make[i]](uint64_t from, std::span<std::byte> out) {
                           stop_if_asked("convert");
                           if (from == 0) values = make();
                           std::ranges::copy(
                               std::as_bytes(std::span(values)).subspan(from, out.size()),
                               out.begin());
                         }});
    }
    stream(kNewFile, streams);
  }

  void write_experts(std::span<const NewTensor> tensors) {
    const auto shards = shards_of(tensors);
    Progress progress{"convert", 0, static_cast<double>(total_bytes(tensors)), "B", "new experts"};
    for (size_t i = 0; i < shards.size(); ++i) {
      std::vector<TensorStream> streams;
      for (const NewTensor& tensor : shards[i]) {
        streams.push_back(
            {tensor.name, tensor.dtype, tensor.shape, [&](uint64_t from, std::span<std::byte> out) {
               stop_if_asked("convert");
               const uint64_t row = tensor.row_bytes();
               read_rows(source_, tensor, static_cast<int64_t>(from / row),
                         static_cast<int64_t>(out.size() / row), out);
               progress.done += static_cast<double>(out.size());
               log_progress(progress);
             }});
      }
      expert_files_.push_back(expert_file(i, shards.size()));
      stream(expert_files_.back(), streams);
    }
  }

  void write_index(const std::vector<PoolTensor>& added, std::span<const NewTensor> experts) {
    Index index;
    for (const std::string& name : source_.file_names()) index.files.push_back(shard_name(name));
    const auto new_file = static_cast<uint32_t>(index.files.size());
    index.files.push_back(kNewFile);
    index.files.insert(index.files.end(), expert_files_.begin(), expert_files_.end());
    uint64_t parameters = 0;
    for (const PoolTensor& tensor : added) parameters += elements(tensor.shape);
    const uint64_t bytes = source_.data_bytes() + parameters * sizeof(float) + total_bytes(experts);
    for (const TensorInfo& tensor : source_.tensors()) {
      index.weight_map.emplace_back(tensor.name, tensor.file);
      parameters += elements(tensor.shape);
    }
    for (const PoolTensor& tensor : added) index.weight_map.emplace_back(tensor.name, new_file);
    uint32_t file = new_file;
    for (const std::span<const NewTensor> shard : shards_of(experts)) {
      ++file;
      for (const NewTensor& tensor : shard) {
        index.weight_map.emplace_back(tensor.name, file);
        parameters += elements(tensor.shape);
      }
    }
    write(kIndexFile, index_text(index, parameters, bytes));
  }

  void write_config(const Pool& pool) {
    const fs::path config = source_.directory() / "config.json";
    manifest_.source_files.push_back(
        {"config.json", InputFile(config, "convert").size(), sha256_of_file(config)});
    write("config.json", with_pool(source_.config(), pool).text());
  }

  Linked finish(const std::string& recipe) {
    manifest_.tool = fmt::format("moue {}", kVersion);
    manifest_.recipe = recipe;
    write_manifest(directory_, manifest_);
    result_.written += InputFile(directory_ / kManifestFile, "convert").size();
    return std::move(result_);
  }

 private:
  static std::string expert_file(size_t shard, size_t shards) {
    return fmt::format("{}-{:05}-of-{:05}.safetensors", kExpertFiles, shard + 1, shards);
  }

  // Links cost nothing and are made anew; a copy that an earlier run completed stays.
  LinkKind linked(const std::string& from, const std::string& name, uint64_t bytes) {
    if (staging_.has(name)) return LinkKind::Copy;
    const LinkKind how = link_file(source_.directory() / from, directory_ / name);
    if (how == LinkKind::Copy) {
      staging_.done(name, {bytes, ""});
      result_.written += bytes;
    }
    return how;
  }

  void stream(const std::string& name, std::span<const TensorStream> tensors) {
    std::optional<FileDigest> digest = staging_.has(name);
    if (!digest) {
      digest = stream_safetensors(directory_ / name, tensors);
      staging_.done(name, *digest);
      result_.written += digest->bytes;
    }
    manifest_.files.push_back({name, digest->bytes, digest->sha256});
  }

  void write(std::string_view name, const std::string& text) {
    write_file_whole(directory_ / name, text);
    add_hashed(std::string(name));
  }

  ManifestFile add_hashed(const std::string& name) {
    const uint64_t bytes = InputFile(directory_ / name, "convert").size();
    manifest_.files.push_back({name, bytes, sha256_of_file(directory_ / name)});
    result_.written += bytes;
    return manifest_.files.back();
  }

  const Checkpoint& source_;
  Staging& staging_;
  const fs::path& directory_;
  std::vector<std::string> expert_files_;
  Manifest manifest_;
  Linked result_;
};

}  // namespace

void check_names(const Checkpoint& source) {
  const std::string directory = source.directory().string();
  if (is_moue(source.config())) {
    fail("convert", "{} is a MoUE already; convert the model it was made from", directory);
  }
  if (!source.is_plain()) {
    fail("convert",
         "{} is not in safetensors' form, whose files alone can be linked; add "
         "--layout packed",
         directory);
  }
  std::set<std::string> taken = {kNewFile};
  std::vector<std::string> faults;
  for (const std::string& name : source.file_names()) {
    const bool is_ours = name.starts_with(kExpertFiles);
    if (is_ours || !taken.insert(shard_name(name)).second) faults.push_back(name);
  }
  if (!faults.empty()) {
    fail("convert", "{} has {}, whose name the result needs; rename it in shards and index",
         directory, join(faults));
  }
}

uint64_t bytes_to_write(const Checkpoint& source, const Pool& pool, const ModelSpec& spec,
                        std::span<const NewTensor> experts) {
  constexpr uint64_t kPerTensor = 300;  // in header, index and manifest together
  uint64_t bytes = (source.tensors().size() + experts.size()) * kPerTensor + total_bytes(experts);
  for (const PoolTensor& tensor : pool_tensors(pool, spec)) {
    bytes += elements(tensor.shape) * sizeof(float) + kPerTensor;
  }
  for (const std::string& name : source.other_files()) {
    bytes += InputFile(source.directory() / name, "convert").size();
  }
  return bytes;
}

Linked write_linked(const Checkpoint& source, const Pool& pool, const ModelSpec& spec,
                    const std::vector<MakeValues>& values, std::span<const NewTensor> experts,
                    const std::string& recipe, Staging& staging) {
  const std::vector<PoolTensor> tensors = pool_tensors(pool, spec);
  Writer writer(source, staging);
  writer.reserve(tensors, experts);
  writer.link_shards();
  writer.copy_others();
  writer.write_pool(tensors, values);
  writer.write_experts(experts);
  writer.write_index(tensors, experts);
  writer.write_config(pool);
  return writer.finish(recipe);
}

}  // namespace moue
