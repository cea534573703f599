// Takes a model directory apart and puts it together again with index and manifest to match.
#include "support/loose_model.h"

#include <algorithm>
#include <map>
#include <stdexcept>

#include "checkpoint/index.h"
#include "checkpoint/manifest.h"
#include "core/sha256.h"
#include "support/scratch.h"

namespace moue::test {

namespace fs = std::filesystem;

namespace {

ManifestFile listed(const fs::path& directory, const std::string& name) {
  return {name, fs::file_size(directory / name), sha256_of_file(directory / name)};
}

// Whether the views are what the file holds already: then a plain copy of it spares a sync.
bool is_unchanged(const Checkpoint& source, const std::string& file,
                  const std::vector<TensorView>& views) {
  const auto& names = source.file_names();
  const auto found = std::ranges::find(names, file);
  if (found == names.end()) return false;
  const WeightFile& whole = source.files()[static_cast<size_t>(found - names.begin())];
  return std::ranges::equal(
      views, whole.tensors(), [&](const TensorView& view, const TensorInfo& tensor) {
        return view.name == tensor.name && view.dtype == tensor.dtype &&
               view.shape == tensor.shape && std::ranges::equal(view.bytes, whole.read(tensor));
      });
}

}  // namespace

LooseModel::LooseModel(const fs::path& directory)
    : source_(open_checkpoint(directory)), claims_(claim(source_, family_of(source_.config()))) {
  for (const TensorInfo& tensor : source_.tensors()) {
    tensors.push_back({tensor.name, tensor.dtype, tensor.shape, source_.read(tensor),
                       source_.file_names()[tensor.file]});
  }
  config = source_.config().json();
  if (is_moue(source_.config())) pool = read_pool(source_.config());
  other_files = source_.other_files();
}

LooseTensor& LooseModel::at(const std::string& name) {
  const auto found = std::ranges::find(tensors, name, &LooseTensor::name);
  if (found == tensors.end()) throw std::logic_error("no tensor " + name);
  return *found;
}

LooseTensor& LooseModel::at(Role role, int64_t layer, int64_t expert) {
  return at(claims_.at(role, layer, expert).name);
}

void LooseModel::erase(const std::string& name) {
  tensors.erase(tensors.begin() + (&at(name) - tensors.data()));
}

std::span<float> LooseModel::floats(const std::string& name) {
  LooseTensor& tensor = at(name);
  if (tensor.dtype != Dtype::F32) throw std::logic_error(name + " is not float32");
  return {reinterpret_cast<float*>(tensor.bytes.data()), tensor.bytes.size() / sizeof(float)};
}

void LooseModel::write(const fs::path& to) const {
  fs::create_directory(to);
  std::map<std::string, std::vector<TensorView>> files;
  uint64_t bytes = 0;
  for (const LooseTensor& tensor : tensors) {
    files[tensor.file].push_back({tensor.name, tensor.dtype, tensor.shape, tensor.bytes});
    bytes += tensor.bytes.size();
  }
  const bool converted = fs::exists(source_.directory() / kManifestFile);
  Manifest manifest = converted ? read_manifest(source_.directory()) : Manifest{};
  manifest.files.clear();
  Index index;
  for (const auto& [name, views] : files) {
    if (is_unchanged(source_, name, views)) {
      fs::copy_file(source_.directory() / name, to / name);
    } else {
      write_safetensors(to / name, views);
    }
    manifest.files.push_back(listed(to, name));
    for (const TensorView& view : views) {
      index.weight_map.emplace_back(view.name, static_cast<uint32_t>(index.files.size()));
    }
    index.files.push_back(name);
  }
  write_text(to / kIndexFile, index_text(index, 0, bytes));
  write_text(to / "config.json", Config(config).text());
  for (const std::string& name : {std::string(kIndexFile), std::string("config.json")}) {
    manifest.files.push_back(listed(to, name));
  }
  for (const std::string& name : other_files) {
    fs::copy_file(source_.directory() / name, to / name);
    manifest.files.push_back(listed(to, name));
  }
  if (converted) write_text(to / kManifestFile, manifest_text(manifest));
}

}  // namespace moue::test
