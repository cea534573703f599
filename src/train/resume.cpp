// Reads a step back: verified, then masters, moments and state into place.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "checkpoint/index.h"
#include "checkpoint/manifest.h"
#include "core/files.h"
#include "core/tree.h"
#include "moue/error.h"
#include "train/checkpoint.h"

namespace fs = std::filesystem;

namespace moue {
namespace {

// The files "STEM-*.safetensors" of training/, and where each of their tensors lies.
class Shards {
 public:
  Shards(const fs::path& step, const std::string& stem)
      : prefix_(std::string(kTrainingFolder) + "/" + stem + "-"), step_(step) {
    for (const ManifestFile& file : read_manifest(step).files) {
      if (file.name.starts_with(prefix_)) files_.emplace_back(step / file.name);
    }
    for (const SafetensorsFile& file : files_) {
      for (const TensorInfo& tensor : file.tensors()) by_name_[tensor.name] = {&file, &tensor};
    }
  }

  void read(const std::string& name, const at::Tensor& into) const {
    const auto found = by_name_.find(name);
    if (found == by_name_.end())
      fail("train", "{}: no tensor {} in {}*.safetensors; resume from an older step",
           step_.string(), name, prefix_);
    const auto [file, tensor] = found->second;
    const Dtype wanted = into.scalar_type() == at::kBFloat16 ? Dtype::BF16 : Dtype::F32;
    if (tensor->dtype != wanted || tensor->shape != into.sizes().vec()) {
      fail("train", "{}: {} is {} {}, wanted {} {}; is it this model's?", file->path().string(),
           name, dtype_name(tensor->dtype), shape_text(tensor->shape), dtype_name(wanted),
           shape_text(into.sizes()));
    }
    const at::Tensor host = at::empty(into.sizes(), into.scalar_type());
    file->read(*tensor, 0, {static_cast<std::byte*>(host.data_ptr()), host.nbytes()});
    into.copy_(host);
  }

 private:
  std::string prefix_;
  fs::path step_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::pair<const SafetensorsFile*, const TensorInfo*>> by_name_;
};

}  // namespace

std::optional<fs::path> latest_step(const fs::path& out) {
  if (!stands(out / "latest")) return std::nullopt;
  std::string name = read_whole_file(out / "latest", "train", 4096);
  while (!name.empty() && name.back() == '\n') name.pop_back();
  if (!is_plain_name(name) || !is_folder(out / name)) {
    fail("train", "{} names '{}', which is no directory there; write the name of a step into it",
         (out / "latest").string(), name);
  }
  return out / name;
}

void verify_step(const fs::path& step) {
  const std::vector<std::string> faults = manifest_faults(read_manifest(step), step, true);
  if (faults.empty()) return;
  fail("train", "{} is not as it was written: {}; name an older step in {}", step.string(),
       fmt::join(faults, "; "), (step.parent_path() / "latest").string());
}

TrainState restore_training(const fs::path& step, const Fixed& now, Model& model,
                            Optimizer& optimizer, Average* average) {
  TrainState state = read_state(step / kTrainingFolder, model.pool().slots, optimizer.moments());
  require_same(state.fixed, now, step.parent_path());
  const Shards masters(step, "master");
  const Shards averages(step, "average");
  const Shards first(step, "first_moment"), second(step, "second_moment");
  std::vector<Parameter>& parameters = model.parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& parameter = parameters[i];
    if (needs_master(parameter)) masters.read(parameter.name, weights_of(parameter).detach());
    if (num_trained(parameter) == 0) continue;
    first.read(parameter.name, optimizer.moments()[i].first);
    second.read(parameter.name, optimizer.moments()[i].second);
    if (average != nullptr) averages.read(parameter.name, average->tensors()[i]);
  }
  model.refresh_values();
  return state;
}

}  // namespace moue
