// open_checkpoint: finds the files of a model directory and holds index and shards against each
// other.
#include "moue/checkpoint.h"

#include "checkpoint/index.h"
#include "core/text.h"
#include "core/tree.h"
#include "moue/error.h"

#include <algorithm>
#include <array>
#include <optional>

namespace moue {
namespace fs = std::filesystem;
namespace {

std::string name_of(const fs::path& path) { return printable(path.native(), 400); }

bool is_weight_file(std::string_view name) {
  constexpr std::array<std::string_view, 7> kEndings = {
      ".safetensors", ".index.json", ".bin", ".pth", ".pt", ".gguf", ".moue-partial"};
  return std::any_of(kEndings.begin(), kEndings.end(),
                     [&](std::string_view ending) { return name.ends_with(ending); });
}

// Files that are carried along with a model: no weights, no description of weights.
std::vector<std::string> list_other_files(const fs::path& directory) {
  std::vector<std::string> names;
  for (const std::string& name : names_in(directory, "checkpoint")) {
    if (is_weight_file(name) || !is_file(directory / name)) continue;
    if (name != "config.json" && name != "moue-manifest.json") names.push_back(name);
  }
  return names;
}

void check_directory(const fs::path& directory) {
  if (!is_folder(directory)) {
    if (is_file(directory)) {
      fail("checkpoint", "{} is not a directory, wanted the one that holds config.json",
           name_of(directory));
    }
    fail("checkpoint", "{} is not there, wanted a model directory", name_of(directory));
  }
  names_in(directory, "checkpoint");  // whether it can be read
  if (!stands(directory / "config.json")) {
    fail("checkpoint", "{} has no config.json, wanted a model directory", name_of(directory));
  }
}

[[noreturn]] void fail_without_weights(const fs::path& directory) {
  std::vector<std::string> others;
  for (const std::string& name : names_in(directory, "checkpoint")) {
    if (is_weight_file(name)) others.push_back(in_quotes(name));
  }
  fail(
      "checkpoint", "{} has neither {} nor {}{}", name_of(directory), kSingleFile, kIndexFile,
      others.empty() ? "" : "; it holds " + join_some(others, 5) + ", convert them to safetensors");
}

// The index, or none where the directory has a single file only.
std::optional<Index> find_index(const fs::path& directory) {
  const bool single = stands(directory / kSingleFile);
  if (!stands(directory / kIndexFile)) {
    if (!single) fail_without_weights(directory);
    return std::nullopt;
  }
  Index index = read_index(directory / kIndexFile);
  if (single && !std::binary_search(index.files.begin(), index.files.end(), kSingleFile)) {
    fail("checkpoint",
         "{} has both {} and {}, which names {} but not that one; remove the stale one",
         name_of(directory), kSingleFile, kIndexFile, counted(index.files.size(), "other file"));
  }
  return index;
}

void require_shards(const fs::path& directory, const Index& index) {
  std::vector<std::string> missing;
  for (const std::string& shard : index.files) {
    const fs::path path = directory / shard;
    fs::path target;
    if (!stands(path)) {
      missing.push_back(in_quotes(shard));
    } else if (leads_nowhere(path, target)) {
      missing.push_back(in_quotes(shard) + " (a link to " + name_of(target) + ")");
    }
  }
  if (missing.empty()) return;
  fail("checkpoint", "{}: {} of {} {} missing: {}; download again or restore", name_of(directory),
       missing.size(), counted(index.files.size(), "shard"), missing.size() == 1 ? "is" : "are",
       join_some(missing));
}

std::vector<SafetensorsFile> open_files(const fs::path& directory,
                                        const std::vector<std::string>& names) {
  std::vector<SafetensorsFile> files;
  std::vector<std::string> faults;
  for (const std::string& name : names) {
    try {
      files.emplace_back(directory / name);
    } catch (const Error& error) {
      faults.emplace_back(error.what());
    }
  }
  if (faults.size() == 1) throw Error(faults[0]);
  if (!faults.empty()) {
    fail("checkpoint", "{}: {} of {} cannot be read: {}", name_of(directory), faults.size(),
         counted(names.size(), "shard"), join_some(faults, 5));
  }
  return files;
}

// Fills tensors and by_name; returns what stands in two shards.
std::vector<std::string> gather(Checkpoint::Contents& contents) {
  std::vector<std::string> twice;
  size_t count = 0;
  for (const SafetensorsFile& file : contents.files) count += file.tensors().size();
  contents.tensors.reserve(count);  // by_name points into it
  contents.by_name.reserve(count);
  for (uint32_t number = 0; number < contents.files.size(); ++number) {
    for (const TensorInfo& tensor : contents.files[number].tensors()) {
      contents.tensors.push_back(tensor);
      contents.tensors.back().file = number;
      const auto index = static_cast<uint32_t>(contents.tensors.size() - 1);
      const auto [it, fresh] = contents.by_name.emplace(contents.tensors.back().name, index);
      if (!fresh) {
        twice.push_back(fmt::format("{} in {} and {}", in_quotes(tensor.name),
                                    contents.file_names[contents.tensors[it->second].file],
                                    contents.file_names[number]));
      }
    }
  }
  return twice;
}

void add_fault(std::string& text, std::string_view what, const std::vector<std::string>& names) {
  if (names.empty()) return;
  text += fmt::format("{}{} {}: {}", text.empty() ? "" : "; ", counted(names.size(), "tensor"),
                      what, join_some(names));
}

void compare(const Checkpoint::Contents& contents, const Index* index,
             const std::vector<std::string>& twice) {
  std::vector<std::string> absent, unlisted;
  if (index != nullptr) {
    std::vector<bool> listed(contents.tensors.size());
    for (const auto& [name, file] : index->weight_map) {
      const auto it = contents.by_name.find(name);
      if (it != contents.by_name.end() && contents.tensors[it->second].file == file) {
        listed[it->second] = true;
      } else if (contents.files[file].find(name) == nullptr) {
        absent.push_back(in_quotes(name) + " in " + in_quotes(contents.file_names[file]));
      } else {
        listed[contents.by_name.at(name)] =
            true;  // named in the second of two shards: told as twice
      }
    }
    for (size_t i = 0; i < listed.size(); ++i) {
      const TensorInfo& tensor = contents.tensors[i];
      if (!listed[i] && contents.by_name.at(tensor.name) == i) {
        unlisted.push_back(in_quotes(tensor.name) + " in " +
                           in_quotes(contents.file_names[tensor.file]));
      }
    }
  }
  std::string faults;
  add_fault(faults, "named by the index but not in the shard", absent);
  add_fault(faults, "in a shard but not named there by the index", unlisted);
  add_fault(faults, "in two shards", twice);
  if (contents.tensors.empty() && faults.empty()) faults = "its weight files hold no tensor";
  if (!faults.empty()) fail("checkpoint", "{}: {}", name_of(contents.directory), faults);
}

}  // namespace

const TensorInfo* Checkpoint::find(std::string_view name) const {
  const auto it = contents_->by_name.find(name);
  return it == contents_->by_name.end() ? nullptr : &contents_->tensors[it->second];
}

const TensorInfo& Checkpoint::at(std::string_view name) const {
  if (const TensorInfo* tensor = find(name)) return *tensor;
  fail("checkpoint", "{} has no tensor {} among its {}", name_of(directory()), in_quotes(name),
       tensors().size());
}

uint64_t Checkpoint::data_bytes() const {
  uint64_t sum = 0;
  for (const TensorInfo& tensor : tensors()) sum += tensor.bytes;
  return sum;
}

Checkpoint open_checkpoint(const fs::path& directory) {
  check_directory(directory);
  Config config = Config::read(directory / "config.json");
  const std::optional<Index> index = find_index(directory);
  std::vector<std::string> names =
      index ? index->files : std::vector<std::string>{std::string(kSingleFile)};
  if (index) require_shards(directory, *index);
  std::vector<SafetensorsFile> files = open_files(directory, names);
  auto contents =
      std::make_shared<Checkpoint::Contents>(Checkpoint::Contents{directory,
                                                                  std::move(config),
                                                                  std::move(files),
                                                                  std::move(names),
                                                                  list_other_files(directory),
                                                                  {},
                                                                  {}});
  const std::vector<std::string> twice = gather(*contents);
  compare(*contents, index ? &*index : nullptr, twice);
  return Checkpoint(std::move(contents));
}

}  // namespace moue
