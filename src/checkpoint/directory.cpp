// Finds the files of a model directory in the forms of Hugging Face, PyTorch and Mistral.
#include "checkpoint/directory.h"

#include "core/files.h"
#include "core/text.h"
#include "core/tree.h"
#include "moue/error.h"

#include <algorithm>
#include <array>

namespace moue {
namespace fs = std::filesystem;
namespace {

constexpr const char* kConfig = "config.json";
constexpr const char* kParams = "params.json";  // Mistral's config

struct FormNames {
  ModelForm form;
  std::string_view single, index;
};

constexpr std::array<FormNames, 2> kForms = {
    {{ModelForm::Safetensors, kSingleFile, kIndexFile},
     {ModelForm::PyTorch, "pytorch_model.bin", "pytorch_model.bin.index.json"}}};
constexpr FormNames kConsolidated = {ModelForm::Consolidated, "consolidated.safetensors",
                                     "consolidated.safetensors.index.json"};

std::string name_of(const fs::path& path) { return printable(path.native(), 400); }

bool is_weight_file(std::string_view name) {
  constexpr std::array<std::string_view, 7> kEndings = {
      ".safetensors", ".index.json", ".bin", ".pth", ".pt", ".gguf", ".moue-partial"};
  return std::any_of(kEndings.begin(), kEndings.end(),
                     [&](std::string_view ending) { return name.ends_with(ending); });
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
}

std::vector<std::string> snapshots_of(const fs::path& cache) {
  std::vector<std::string> names = names_in(cache / "snapshots", "checkpoint");
  std::erase_if(names,
                [&](const std::string& name) { return !is_folder(cache / "snapshots" / name); });
  return names;
}

// The revision that refs/main names, "" without one.
std::string main_of(const fs::path& cache) {
  const fs::path ref = cache / "refs" / "main";
  if (!stands(ref)) return "";
  std::string name = read_whole_file(ref, "checkpoint", 1000);
  while (!name.empty() && (name.back() == '\n' || name.back() == '\r')) name.pop_back();
  if (!is_plain_name(name)) {
    fail("checkpoint", "{} says {}, wanted the name of a snapshot", name_of(ref), in_quotes(name));
  }
  return name;
}

[[noreturn]] void fail_without_weights(const fs::path& directory) {
  std::vector<std::string> others;
  for (const std::string& name : names_in(directory, "checkpoint")) {
    if (is_weight_file(name)) others.push_back(in_quotes(name));
  }
  fail("checkpoint", "{} has neither {} nor {}{}", name_of(directory), kSingleFile, kIndexFile,
       others.empty()
           ? ""
           : "; it holds " + join_some(others, 5) + ", which is not a model that can be read");
}

// The index, or none where the directory has a single file only.
std::optional<Index> find_index(const fs::path& directory, const FormNames& form) {
  const bool single = stands(directory / form.single);
  if (!stands(directory / form.index)) return std::nullopt;
  Index index = read_index(directory / form.index);
  if (single && !std::binary_search(index.files.begin(), index.files.end(), form.single)) {
    fail("checkpoint",
         "{} has both {} and {}, which names {} but not that one; remove the stale one",
         name_of(directory), form.single, form.index, counted(index.files.size(), "other file"));
  }
  return index;
}

// consolidated.safetensors, or its index's shards, or consolidated.00.pth and so on.
ModelFiles find_consolidated(const fs::path& directory) {
  ModelFiles files{ModelForm::Consolidated, kParams, {}, find_index(directory, kConsolidated)};
  if (files.index) {
    files.names = files.index->files;
    return files;
  }
  for (const std::string_view ending : {".safetensors", ".pth", ".pt"}) {
    for (const std::string& name : names_in(directory, "checkpoint")) {
      if (name.starts_with("consolidated") && name.ends_with(ending)) files.names.push_back(name);
    }
    if (!files.names.empty()) break;
  }
  return files;
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

}  // namespace

fs::path find_model(const fs::path& directory) {
  check_directory(directory);
  if (stands(directory / kConfig) || !is_folder(directory / "snapshots")) {
    return directory;
  }
  const std::vector<std::string> snapshots = snapshots_of(directory);
  const std::string main = main_of(directory);
  if (!main.empty() && std::ranges::binary_search(snapshots, main)) {
    return directory / "snapshots" / main;
  }
  if (snapshots.size() == 1) return directory / "snapshots" / snapshots[0];
  fail("checkpoint", "{}: {}, {}; name one of them", name_of(directory),
       main.empty() ? "refs/main is missing" : "refs/main names " + in_quotes(main),
       snapshots.empty() ? "snapshots/ is empty" : "snapshots/ holds " + join_some(snapshots));
}

ModelFiles find_files(const fs::path& directory) {
  if (!stands(directory / kConfig) && !stands(directory / kParams)) {
    fail("checkpoint", "{} has no config.json, wanted a model directory", name_of(directory));
  }
  ModelFiles files;
  for (const FormNames& form : kForms) {
    if (!stands(directory / kConfig)) break;
    const bool single = stands(directory / form.single);
    files = {form.form, kConfig, {}, find_index(directory, form)};
    if (files.index) files.names = files.index->files;
    if (!files.index && single) files.names = {std::string(form.single)};
    if (!files.names.empty()) break;
  }
  if (files.names.empty() && stands(directory / kParams)) files = find_consolidated(directory);
  if (files.names.empty()) fail_without_weights(directory);
  if (files.index) require_shards(directory, *files.index);
  return files;
}

std::vector<std::string> list_other_files(const fs::path& directory, const ModelFiles& files) {
  std::vector<std::string> names;
  for (const std::string& name : names_in(directory, "checkpoint")) {
    if (is_weight_file(name) || !is_file(directory / name)) continue;
    if (name != kConfig && name != files.config && name != "moue-manifest.json") {
      names.push_back(name);
    }
  }
  return names;
}

}  // namespace moue
