// Writes a step: every tensor of the source under its name and dtype, the rest of the directory,
// training/.
#include "train/checkpoint.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "checkpoint/index.h"
#include "convert/card.h"
#include "core/files.h"
#include "core/sha256.h"
#include "core/staging.h"
#include "core/tree.h"
#include "family/unpacked.h"
#include "moue/error.h"
#include "train/shards.h"

namespace fs = std::filesystem;

namespace moue {
namespace {

constexpr const char* kPoolFile = "model-moue.safetensors";
constexpr const char* kTool = "moue";

/// What is written in place of the source's tensors, by the name it is written under.
using Trained = std::unordered_map<std::string, Stored>;

// A piece of a parameter's master and its place in the tensor that holds it.
struct Piece {
  at::Tensor values;  // [rows * columns]
  Slice slice;
};

at::Tensor assembled(const std::vector<Piece>& pieces, at::ScalarType type) {
  if (pieces.size() == 1 && pieces[0].slice.is_contiguous())
    return host_tensor(pieces[0].values, type);
  int64_t elements = 0;
  for (const Piece& piece : pieces) elements += piece.values.numel();
  at::Tensor tensor = at::empty({elements}, type);
  for (const auto& [values, slice] : pieces) {
    tensor
        .as_strided({slice.rows, slice.columns}, {slice.row_stride, slice.column_stride},
                    slice.offset)
        .copy_(values.view({slice.rows, slice.columns}));
  }
  return tensor;
}

bool is_packed(const DiskTensor& disk) { return disk.slice.packing != Packing::Plain; }

// What never moved is copied from the source, whatever it computes in.
bool is_as_source(const Parameter& parameter) {
  const std::string& name = parameter.disk.front().name;
  return !parameter.frozen.empty() && num_trained(parameter) == 0 &&
         (!is_pool_tensor(name) || is_expert_tensor(name)) &&
         std::none_of(parameter.disk.begin(), parameter.disk.end(), is_packed);
}

// Each tensor on disk from the pieces of the parameters that make it up.
Trained trained_tensors(const std::vector<Parameter>& parameters) {
  std::unordered_map<const TensorInfo*, std::vector<Piece>> pieces;
  for (const Parameter& parameter : parameters) {
    if (is_as_source(parameter)) continue;
    const at::Tensor& held = parameter.master.defined() ? parameter.master : parameter.value;
    const at::Tensor flat = held.detach().reshape({-1});
    for (const DiskTensor& disk : parameter.disk) {
      const int64_t size = disk.slice.rows * disk.slice.columns;
      pieces[disk.slice.tensor].push_back({flat.narrow(0, disk.offset, size), disk.slice});
    }
  }
  Trained trained;
  for (auto& [tensor, parts] : pieces) {
    Stored written{tensor->name, tensor->dtype, tensor->shape, {}};
    for (Piece& part : parts) {
      if (part.slice.packing == Packing::Plain) continue;
      Unpacked plain = unpacked(part.slice);
      part.slice = plain.slice;
      written = {std::move(plain.name), Dtype::BF16, std::move(plain.shape), {}};
    }
    const at::ScalarType type = scalar_type(written.dtype, written.name);
    written.make = [parts = std::move(parts), type] { return assembled(parts, type); };
    const std::string name = written.name;
    trained.emplace(name, std::move(written));
  }
  return trained;
}

Stored numbers(const std::string& name, const std::vector<double>& values) {
  const auto size = static_cast<int64_t>(values.size());
  const auto make = [values] { return at::tensor(values, at::kDouble).to(at::kFloat); };
  return {name, Dtype::F32, {size}, make};
}

// What is neither trained by gradient nor the source's: how far slots are open, and the selection
// biases.
void add_visibility(const Model& model, Trained& trained) {
  const int64_t experts = model.pool().experts_per_layer;
  for (int64_t layer = 0; layer < model.pool().num_moe_layers(); ++layer) {
    const std::vector<double>& m = model.visibility()[layer];
    const std::string name = names::router_visibility(layer);
    trained.insert_or_assign(name, numbers(name, {m.begin() + experts, m.end()}));
  }
}

void add_pool_bias(Model& model, Trained& trained) {
  const at::Tensor bias = model.pool_bias();
  trained.insert_or_assign(names::kPoolBias,
                           Stored{names::kPoolBias, Dtype::F32, bias.sizes().vec(),
                                  [bias] { return host_tensor(bias, at::kFloat).clone(); }});
}

void add_corrections(Model& model, Trained& trained) {
  for (int64_t layer = 0; layer < model.pool().num_moe_layers(); ++layer) {
    const at::Tensor all = model.correction(layer);
    if (!all.defined()) continue;
    const std::string name = names::router_correction(layer);
    const at::Tensor foreign =
        all.narrow(0, model.pool().experts_per_layer, model.pool().num_foreign(layer));
    trained.insert_or_assign(name, Stored{name, Dtype::F32, foreign.sizes().vec(), [foreign] {
                                            return host_tensor(foreign, at::kFloat).clone();
                                          }});
  }
}

Stored untouched(const Checkpoint& source, const TensorInfo& tensor) {
  return {tensor.name, tensor.dtype, tensor.shape, [&source, &tensor] {
            const auto size = static_cast<int64_t>(tensor.bytes);
            at::Tensor bytes = at::empty({size}, at::kByte);
            source.read(tensor, 0, {static_cast<std::byte*>(bytes.data_ptr()), tensor.bytes});
            return bytes;
          }};
}

void write_weights(Model& model, const Checkpoint& source, const fs::path& directory,
                   Written& written) {
  Trained trained = trained_tensors(model.parameters());
  if (model.is_moue()) {
    add_visibility(model, trained);
    add_pool_bias(model, trained);
    add_corrections(model, trained);
  }
  std::vector<Stored> base, added;
  const Claims claims = claim(source, family_of(source.config()));
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    const TensorInfo& tensor = source.tensors()[i];
    const std::optional<std::string> name = unpacked_name(tensor, claims.of_tensors()[i]);
    if (!name) continue;
    const auto found = trained.find(*name);
    Stored stored = found == trained.end() ? untouched(source, tensor) : found->second;
    const bool is_small = is_pool_tensor(tensor.name) && !is_expert_tensor(tensor.name);
    (is_small ? added : base).push_back(std::move(stored));
  }
  write_shards(directory, "model", base, kShardBytes, written);
  if (!added.empty()) write_tensors(directory, kPoolFile, added, written);
}

ManifestFile described(const fs::path& directory, const std::string& name) {
  return {name, InputFile(directory / name, "train").size(), sha256_of_file(directory / name)};
}

void write_text(const fs::path& directory, const std::string& name, const std::string& text,
                Written& written) {
  write_file_whole(directory / name, text);
  written.files.push_back(described(directory, name));
}

std::string index_of(const Written& written) {
  Index index;
  for (const ManifestFile& file : written.files) index.files.push_back(file.name);
  std::sort(index.files.begin(), index.files.end());
  for (const auto& [tensor, file] : written.weight_map) {
    const auto at = std::lower_bound(index.files.begin(), index.files.end(), file);
    index.weight_map.emplace_back(tensor, static_cast<uint32_t>(at - index.files.begin()));
  }
  return index_text(index, written.parameters, written.bytes);
}

std::map<std::string, std::string> fates(const Written& written) {
  std::map<std::string, std::string> fates;
  for (const auto& [tensor, file] : written.weight_map) fates[tensor] = "trained " + file;
  return fates;
}

Manifest write_model(Model& model, const Checkpoint& source, const Pool& pool,
                     const std::string& recipe, const fs::path& directory) {
  Written written;
  write_weights(model, source, directory, written);
  write_text(directory, std::string(kIndexFile), index_of(written), written);
  const Config config = without_packing(source.config());  // trained weights are plain
  write_text(directory, "config.json",
             (model.is_moue() ? with_pool(without_pool(config), pool) : config).text(), written);
  for (const std::string& name : source.other_files()) {
    if (model.is_moue() && name == kCard) continue;
    copy_file_whole(source.directory() / name, directory / name, "train");
    written.files.push_back(described(directory, name));
  }
  if (model.is_moue())
    write_text(directory, kCard, renewed_card(source, model.spec(), pool, ""), written);
  Manifest manifest{kTool, recipe, written.files, {}, fates(written)};
  for (const std::string& name : source.file_names()) {
    manifest.source_files.push_back(
        {name, InputFile(source.directory() / name, "train").size(), {}});
  }
  return manifest;
}

Stored float32(const std::string& name, const at::Tensor& tensor) {
  return {name, Dtype::F32, tensor.sizes().vec(),
          [tensor] { return host_tensor(tensor, at::kFloat); }};
}

void write_training(const std::vector<Parameter>& parameters, const Optimizer& optimizer,
                    const Average* average, const TrainState& state, const fs::path& step,
                    Manifest& manifest) {
  std::vector<Stored> masters, first, second, averages;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters[i].name;
    if (needs_master(parameters[i])) masters.push_back(float32(name, parameters[i].master));
    if (num_trained(parameters[i]) == 0) continue;
    first.push_back(float32(name, optimizer.moments()[i].first));
    second.push_back(float32(name, optimizer.moments()[i].second));
    if (average != nullptr) averages.push_back(float32(name, average->tensors()[i]));
  }
  const fs::path directory = step / kTrainingFolder;
  make_directories(directory, "train");
  Written written;
  write_shards(directory, "master", masters, kShardBytes, written);
  write_shards(directory, "first_moment", first, kShardBytes, written);
  write_shards(directory, "second_moment", second, kShardBytes, written);
  write_shards(directory, "average", averages, kShardBytes, written);
  write_state(state, optimizer.moments(), directory);
  written.files.push_back(described(directory, kStateJson));
  written.files.push_back(described(directory, kStateTensors));
  for (ManifestFile& file : written.files) {
    file.name = std::string(kTrainingFolder) + "/" + file.name;
    manifest.files.push_back(std::move(file));
  }
}

}  // namespace

bool needs_master(const Parameter& parameter) {
  if (num_trained(parameter) == 0) return false;
  return std::any_of(parameter.disk.begin(), parameter.disk.end(),
                     [](const DiskTensor& disk) { return disk.dtype != Dtype::F32; });
}

std::string step_name(int64_t step) { return fmt::format("step-{:06}", step); }

uint64_t StepWriter::bytes() const {
  uint64_t bytes = source.data_bytes();
  for (const Parameter& parameter : model.parameters()) {
    bytes += static_cast<uint64_t>(num_trained(parameter)) * 2 * sizeof(float);
    if (average != nullptr && num_trained(parameter) > 0)
      bytes += static_cast<uint64_t>(parameter.master.numel()) * sizeof(float);
    if (needs_master(parameter))
      bytes += static_cast<uint64_t>(parameter.master.numel()) * sizeof(float);
    for (const DiskTensor& disk : parameter.disk) {
      if (!is_packed(disk)) continue;
      bytes += static_cast<uint64_t>(disk.slice.rows * disk.slice.columns) * 2;  // as bfloat16
    }
  }
  return bytes;
}

fs::path StepWriter::write(const fs::path& out, const TrainState& state, const Pool& pool) const {
  const std::string name = step_name(state.step);
  require_space(out, bytes());
  Staging staging(out / name, "", Staging::Existing::Replace);
  Manifest manifest = write_model(model, source, pool, recipe, staging.path());
  write_training(model.parameters(), optimizer, average, state, staging.path(), manifest);
  write_manifest(staging.path(), manifest);
  staging.commit();
  write_file_whole(out / "latest", name + "\n");
  return out / name;
}

}  // namespace moue
