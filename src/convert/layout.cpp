// How a result lies on disk, and the writing of it.
#include "convert/layout.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "core/files.h"
#include "core/text.h"
#include "moue/error.h"
#include "moue/log.h"

namespace moue {

namespace {

constexpr std::array<std::string_view, 3> kLayouts = {"linked", "packed", "export"};
constexpr const char* kOnlyShard = "model-00001-of-00001.safetensors";

// "copied model-00001-of-00002.safetensors as NAME"
std::string fate_of(const Content& content, const Part& part, const std::string& file) {
  const std::string& was = content.source().tensors()[part.index].name;
  const std::string how =
      content.is_cast(part) ? fmt::format("cast {}", dtype_name(part.dtype)) : "copied";
  const std::string renamed = part.name == was ? "" : fmt::format(" as {}", part.name);
  return fmt::format("{} {}{}", how, file, renamed);
}

void link_shards(const Job& job, Directory& directory) {
  const Checkpoint& source = job.content->source();
  for (size_t i = 0; i < source.files().size(); ++i) {
    directory.link_shard(i, linked_name(source.file_names()[i]));
  }
  for (const TensorInfo& tensor : source.tensors()) {
    directory.set_fate(tensor.name, "linked " + linked_name(source.file_names()[tensor.file]));
  }
}

void set_fates(const Job& job, Directory& directory) {
  const Checkpoint& source = job.content->source();
  for (const Shard& shard : job.shards) {
    for (size_t i = shard.first; i < shard.first + shard.count; ++i) {
      const Part& part = job.content->parts()[i];
      if (part.from != Part::From::Source) continue;
      directory.set_fate(source.tensors()[part.index].name,
                         fate_of(*job.content, part, shard.name));
    }
  }
  for (const auto& [tensor, why] : job.content->dropped()) {
    directory.set_fate(tensor, "dropped: " + why);
  }
}

void write_shards(const Job& job, Directory& directory) {
  if (job.shards.empty()) return;
  std::vector<StreamedFile> files;
  uint64_t total = 0;
  for (const Shard& shard : job.shards) {
    files.push_back({shard.name, shard.bytes, [&](uint64_t from, std::span<std::byte> out) {
                       read_shard(*job.content, shard, from, out);
                     }});
    total += shard.bytes;
  }
  std::atomic<uint64_t> done = 0;
  StreamOptions options = job.stream;
  options.written = [&](uint64_t bytes) {
    const uint64_t now = done += bytes;
    log_progress({"convert", static_cast<double>(now), static_cast<double>(total), "B",
                  counted(job.shards.size(), "file")});
  };
  const std::vector<FileDigest> digests = stream_files(directory.staging(), files, options);
  for (size_t i = 0; i < digests.size(); ++i) directory.add_written(files[i].name, digests[i]);
  directory.add_read(bytes_to_read(job));
}

void write_index(const Job& job, Directory& directory) {
  const Checkpoint& source = job.content->source();
  Index index;
  uint64_t parameters = 0, bytes = job.content->bytes();
  if (job.layout == Layout::Linked) {
    for (const std::string& name : source.file_names()) index.files.push_back(linked_name(name));
    for (const TensorInfo& tensor : source.tensors()) {
      index.weight_map.emplace_back(tensor.name, tensor.file);
      parameters += num_elements(tensor.shape);
    }
    bytes += source.data_bytes();
  }
  for (const Shard& shard : job.shards) {
    const auto file = static_cast<uint32_t>(index.files.size());
    index.files.push_back(shard.name);
    for (size_t i = shard.first; i < shard.first + shard.count; ++i) {
      const Part& part = job.content->parts()[i];
      index.weight_map.emplace_back(part.name, file);
      parameters += num_elements(part.shape);
    }
  }
  directory.write_index(index, parameters, bytes);
}

}  // namespace

std::string_view to_string(Layout layout) { return kLayouts[static_cast<size_t>(layout)]; }

Layout layout_of(std::string_view name) {
  const auto found = std::ranges::find(kLayouts, name);
  if (found != kLayouts.end()) return static_cast<Layout>(found - kLayouts.begin());
  fail("convert", "no layout {}; known: {}", in_quotes(name), fmt::join(kLayouts, ", "));
}

std::string linked_name(const std::string& source_name) {
  return source_name == kSingleFile ? kOnlyShard : source_name;
}

std::vector<Shard> shards_for(const Content& content, Layout layout, uint64_t shard_size) {
  const std::vector<Part>& parts = content.parts();
  if (layout == Layout::Linked) {
    const auto pool = static_cast<size_t>(
        std::ranges::find(parts, Part::From::Values, &Part::from) - parts.begin());
    std::vector<Shard> shards = shards_of(content, 0, pool, shard_size, kExpertFiles);
    if (pool < parts.size()) shards.push_back(shard_of(content, pool, parts.size(), kNewFile));
    return shards;
  }
  std::vector<Shard> shards = shards_of(content, 0, parts.size(), shard_size, "model");
  if (layout == Layout::Export && shards.size() == 1) shards[0].name = kSingleFile;
  return shards;
}

uint64_t bytes_to_write(const Job& job) {
  constexpr uint64_t kPerTensor = 300;  // in index and manifest together
  const Checkpoint& source = job.content->source();
  uint64_t bytes = (source.tensors().size() + job.content->parts().size()) * kPerTensor;
  for (const Shard& shard : job.shards) bytes += shard.bytes;
  for (const Carried& file : job.others)
    bytes += InputFile(source.directory() / file.from, "convert").size();
  for (const auto& [name, text] : job.texts) bytes += text.size();
  return bytes;
}

uint64_t bytes_to_read(const Job& job) {
  uint64_t bytes = 0;
  for (const Part& part : job.content->parts()) {
    const bool is_copied = part.from == Part::From::Source;
    bytes += is_copied ? job.content->source().tensors()[part.index].bytes : part.bytes;
  }
  return bytes;
}

Result write_result(const Job& job, const std::string& recipe, Staging& staging) {
  Directory result(job.content->source(), staging);
  const bool links = job.layout == Layout::Linked;
  if (job.hash) result.hash_sources(job.stream.threads);
  if (links) {
    link_shards(job, result);
  } else {
    result.add_source_shards();
    set_fates(job, result);
  }
  write_shards(job, result);
  for (const Carried& file : job.others) result.carry(file.from, file.to);
  for (const auto& [name, text] : job.texts) result.write(name, text);
  if (links || job.shards.size() != 1 || job.shards[0].name != kSingleFile)
    write_index(job, result);
  result.write_config(*job.config);
  return result.finish(recipe);
}

}  // namespace moue
