// Holds moue-manifest.json against the directory it describes and the source it names.
#include "checkpoint/manifest.h"

#include "core/text.h"
#include "core/tree.h"
#include "moue/error.h"
#include "moue/pool.h"
#include "validate/bytes.h"

namespace moue {

namespace fs = std::filesystem;

namespace {

// Every source tensor must have a fate, and lie in the file, under the name, that it gives. What
// the pool added on the way is no tensor of the source.
void check_fates(const Manifest& manifest, const Checkpoint& original, const Checkpoint& result,
                 Faults& faults) {
  for (const TensorInfo& tensor : original.tensors()) {
    const auto entry = manifest.tensors.find(tensor.name);
    if (entry == manifest.tensors.end()) {
      faults.push_back("the manifest does not say what became of " + tensor.name);
      continue;
    }
    const Fate fate = fate_of(entry->second);
    const TensorInfo* seen = result.find(fate.name.empty() ? tensor.name : fate.name);
    if (seen == nullptr || fate.file.empty()) continue;
    const std::string& file = result.file_names()[seen->file];
    if (fate.file == file) continue;
    faults.push_back(fmt::format("{} is in {}, the manifest says '{}'", tensor.name, file,
                                 printable(entry->second)));
  }
  for (const auto& [name, fate] : manifest.tensors) {
    if (original.find(name) == nullptr && !is_pool_tensor(name)) {
      faults.push_back("the manifest speaks of " + in_quotes(name) + ", which the source lacks");
    }
  }
}

}  // namespace

Faults manifest_faults_of(const Checkpoint& original, const Checkpoint& result, bool wanted) {
  const fs::path& directory = result.directory();
  if (!stands(directory / kManifestFile)) {
    if (!wanted) return {};
    return {fmt::format("{} is missing; was the conversion completed?", kManifestFile)};
  }
  try {
    const Manifest manifest = read_manifest(directory);
    Faults faults = manifest_faults(manifest, directory, true);
    if (wanted) check_fates(manifest, original, result, faults);
    return faults;
  } catch (const Error& error) {
    return {error.what()};
  }
}

}  // namespace moue
