// validate --manifest: a written directory against its own manifest, without source and LibTorch.
#include <algorithm>
#include <set>

#include "checkpoint/manifest.h"
#include "core/text.h"
#include "core/tree.h"
#include "moue/error.h"
#include "moue/family.h"
#include "moue/pool.h"
#include "moue/validate.h"
#include "validate/bytes.h"

namespace moue {

namespace fs = std::filesystem;

namespace {

// Runs a check; what it throws is a fault among its own.
template <class Find>
Check examine(const char* name, Find find) {
  Faults faults;
  std::string note;
  try {
    note = find(faults);
  } catch (const Error& error) {
    faults.emplace_back(error.what());
  }
  return check_of(name, faults, note);
}

int64_t count_unhashed(const Manifest& manifest) {
  return std::ranges::count_if(manifest.files,
                               [](const ManifestFile& file) { return !file.sha256; });
}

std::string check_files(const Manifest& manifest, const fs::path& directory, Faults& faults) {
  for (std::string& fault : manifest_faults(manifest, directory, true))
    faults.push_back(std::move(fault));
  const auto files = static_cast<int64_t>(manifest.files.size());
  const int64_t unhashed = count_unhashed(manifest);
  return fmt::format("{} files, {} of them by SHA-256, {} by size", files, files - unhashed,
                     unhashed);
}

std::string check_model(const Checkpoint& model, Faults&) {
  const Family& family = family_of(model.config());
  const ModelSpec spec = family.spec(model.config());
  claim(model, family);
  if (is_moue(model.config())) {
    const Pool pool = read_pool(model.config());
    check_pool(pool, spec.experts_per_token);
    check_pool_fits(pool, spec, model);
  }
  return fmt::format("{}, {} tensors", family.name, model.tensors().size());
}

// A source tensor must be where its fate says, and each tensor of the directory that the conversion
// did not add must have a fate.
std::string check_ledger(const Manifest& manifest, const Checkpoint& model, Faults& faults) {
  std::set<std::string> known;
  for (const auto& [name, text] : manifest.tensors) {
    const Fate fate = fate_of(text);
    const std::string& now = fate.name.empty() ? name : fate.name;
    if (!fate.file.empty()) known.insert(now);
    const TensorInfo* tensor = model.find(now);
    const std::string seen = tensor ? model.file_names()[tensor->file] : "";
    // A dropped tensor's name may be another's now.
    if (fate.file == seen || fate.file.empty()) continue;
    faults.push_back(fmt::format("{} is {}, the manifest says '{}'", printable(now),
                                 tensor ? "in " + seen : "missing", printable(text)));
  }
  for (const TensorInfo& tensor : model.tensors()) {
    if (is_pool_tensor(tensor.name) || known.contains(tensor.name)) continue;
    faults.push_back("the manifest does not know " + printable(tensor.name));
  }
  return fmt::format("what became of {} source tensors", manifest.tensors.size());
}

void examine_manifest(const Manifest& manifest, const fs::path& directory, Report& report) {
  auto& checks = report.checks;
  checks.push_back(
      examine("files", [&](Faults& faults) { return check_files(manifest, directory, faults); }));
  std::optional<Checkpoint> model;
  checks.push_back(examine("model", [&](Faults& faults) {
    model = open_checkpoint(directory);
    return check_model(*model, faults);
  }));
  if (model) {
    checks.push_back(
        examine("ledger", [&](Faults& faults) { return check_ledger(manifest, *model, faults); }));
  }
  if (const int64_t unhashed = count_unhashed(manifest); unhashed > 0) {
    report.warnings.push_back(fmt::format(
        "{} linked files have no SHA-256 in the manifest: their size was checked alone (moue "
        "convert --hash notes it, moue validate ORIGINAL RESULT compares their bytes)",
        unhashed));
  }
}

}  // namespace

Report validate_directory(const fs::path& directory) {
  if (!is_folder(directory)) {
    fail("validate", "{} is no directory; name one that moue convert or moue train wrote",
         directory.string());
  }
  Report report;
  report.verb = "validate";
  report.title = "Validation of " + directory.string() + " against its manifest";
  report.facts = {{"result", directory.string(), ""}};
  std::optional<Manifest> manifest;
  report.checks.push_back(examine("manifest", [&](Faults&) {
    manifest = read_manifest(directory);
    report.facts.push_back({"written_by", printable(manifest->tool, 100), ""});
    return "";
  }));
  if (manifest) examine_manifest(*manifest, directory, report);
  return report;
}

}  // namespace moue
