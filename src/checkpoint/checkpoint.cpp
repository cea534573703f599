// open_checkpoint: opens the files of a model directory and holds index and shards against each
// other.
#include "moue/checkpoint.h"

#include "checkpoint/consolidated.h"
#include "checkpoint/directory.h"
#include "core/text.h"
#include "moue/error.h"

#include <algorithm>

namespace moue {
namespace fs = std::filesystem;
namespace {

std::string name_of(const fs::path& path) { return printable(path.native(), 400); }

std::vector<WeightFile> open_files(const fs::path& directory,
                                   const std::vector<std::string>& names) {
  std::vector<WeightFile> files;
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
  for (const WeightFile& file : contents.files) count += file.tensors().size();
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

bool Checkpoint::is_plain() const {
  return std::ranges::all_of(files(), &WeightFile::is_safetensors) &&
         contents_->config_file == "config.json";
}

Checkpoint open_checkpoint(const fs::path& given) {
  const fs::path directory = find_model(given);
  ModelFiles found = find_files(directory);
  const bool consolidated = found.form == ModelForm::Consolidated;
  Config config =
      consolidated ? Config::parse("{}", found.config) : Config::read(directory / found.config);
  std::vector<WeightFile> files = open_files(directory, found.names);
  std::vector<std::string> others = list_other_files(directory, found);
  auto contents = std::make_shared<Checkpoint::Contents>(
      Checkpoint::Contents{.directory = directory,
                           .config = std::move(config),
                           .files = std::move(files),
                           .file_names = std::move(found.names),
                           .other_files = std::move(others),
                           .tensors = {},
                           .by_name = {},
                           .config_file = found.config});
  const std::vector<std::string> twice = gather(*contents);
  compare(*contents, found.index ? &*found.index : nullptr, twice);
  if (consolidated) translate(*contents);
  return Checkpoint(std::move(contents));
}

}  // namespace moue
