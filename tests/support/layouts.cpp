// Directories of one model in several layouts, and what must be equal between them.
#include "support/layouts.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/sha256.h"

namespace moue::test {

namespace fs = std::filesystem;

std::vector<std::string> family_folders() {
  std::vector<std::string> folders;
  for (const auto& entry : fs::directory_iterator("tests/golden/families")) {
    if (entry.is_directory()) folders.push_back(entry.path().string());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

TensorDigests digests_of(const fs::path& directory) {
  const Checkpoint checkpoint = open_checkpoint(directory);
  TensorDigests digests;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    digests[tensor.name] =
        fmt::format("{} {} {}", dtype_name(tensor.dtype), shape_text(tensor.shape),
                    sha256_of(checkpoint.read(tensor)));
  }
  return digests;
}

TensorDigests base_digests_of(const fs::path& directory) {
  TensorDigests digests = digests_of(directory);
  std::erase_if(digests, [](const auto& entry) { return is_pool_tensor(entry.first); });
  return digests;
}

Plan plan_for(const Checkpoint& source, int64_t new_experts) {
  PlanOptions options;
  if (new_experts > 0) {
    options.mode = "expand";
    options.experts = new_experts;
    options.topology = "one_pool";
  }
  return make_plan(source, family_of(source.config()), nullptr, options);
}

Report to_moue(const fs::path& from, const fs::path& to, const ConvertOptions& options,
               int64_t new_experts) {
  const Checkpoint source = open_checkpoint(from);
  return convert(source, plan_for(source, new_experts), nullptr, to, options);
}

Report relayout(const fs::path& from, const fs::path& to, const ConvertOptions& options) {
  return convert(open_checkpoint(from), to, options);
}

ConvertOptions layout(const std::string& name) {
  ConvertOptions options;
  options.layout = name;
  return options;
}

}  // namespace moue::test
