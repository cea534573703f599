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
Trained trained_tensors(const std::vector<Parameter>& parameters, const StepImage& image) {
  std::unordered_map<const TensorInfo*, std::vector<Piece>> pieces;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& parameter = parameters[i];
    if (is_as_source(parameter)) continue;
    const at::Tensor flat = image.weights[i].reshape({-1});
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

Stored float32(const std::string& name, const at::Tensor& tensor) {
  return {name, Dtype::F32, tensor.sizes().vec(),
          [tensor] { return host_tensor(tensor, at::kFloat); }};
}

// What is neither trained by gradient nor the source's: how far slots are open, and the selection
// biases.
void add_state(const StepImage& image, Trained& trained) {
  const Pool& pool = image.pool;
  const auto add = [&](Stored stored) {
    const std::string name = stored.name;
    trained.insert_or_assign(name, std::move(stored));
  };
  add(float32(names::kPoolBias, image.pool_bias));
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    const std::vector<double>& m = image.visibility[layer];
    add(numbers(names::router_visibility(layer), {m.begin() + pool.experts_per_layer, m.end()}));
    const at::Tensor& all = image.corrections[layer];
    if (!all.defined()) continue;
    add(float32(names::router_correction(layer),
                all.narrow(0, pool.experts_per_layer, pool.num_foreign(layer))));
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

// `written_as` as in StepWriter.
void write_weights(const Checkpoint& source, Trained trained,
                   const std::vector<std::string>& written_as, const fs::path& directory,
                   Written& written) {
  std::vector<Stored> base, added;
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    if (written_as[i].empty()) continue;
    const TensorInfo& tensor = source.tensors()[i];
    const auto found = trained.find(written_as[i]);
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

// What stands beside the weights, which are `written`.
Manifest write_rest(const Model& model, const Checkpoint& source, const Pool& pool,
                    const std::string& recipe, const fs::path& directory, Written& written) {
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

// As it is in memory.
Stored kept(const std::string& name, const at::Tensor& tensor) {
  const at::ScalarType type = tensor.scalar_type();
  return {name, type == at::kBFloat16 ? Dtype::BF16 : Dtype::F32, tensor.sizes().vec(),
          [tensor, type] { return host_tensor(tensor, type); }};
}

void write_training(const std::vector<Parameter>& parameters, const StepImage& image,
                    const fs::path& step, Manifest& manifest) {
  std::vector<Stored> masters, first, second, averages;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters[i].name;
    if (needs_master(parameters[i])) masters.push_back(kept(name, image.weights[i]));
    if (num_trained(parameters[i]) == 0) continue;
    first.push_back(kept(name, image.moments[i].first));
    second.push_back(kept(name, image.moments[i].second));
    if (!image.averages.empty()) averages.push_back(kept(name, image.averages[i]));
  }
  const fs::path directory = step / kTrainingFolder;
  make_directories(directory, "train");
  Written written;
  write_shards(directory, "master", masters, kShardBytes, written);
  write_shards(directory, "first_moment", first, kShardBytes, written);
  write_shards(directory, "second_moment", second, kShardBytes, written);
  write_shards(directory, "average", averages, kShardBytes, written);
  write_state(image.state, image.moments, directory);
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
  const bool narrow = weights_of(parameter).scalar_type() == at::kBFloat16;
  return std::any_of(parameter.disk.begin(), parameter.disk.end(), [&](const DiskTensor& disk) {
    const Dtype written = is_packed(disk) ? Dtype::BF16 : disk.dtype;
    return written != Dtype::F32 && !(narrow && written == Dtype::BF16);
  });
}

std::string step_name(int64_t step) { return fmt::format("step-{:06}", step); }

StepWriter::StepWriter(Model& model, const Checkpoint& source) : model_(model), source_(source) {
  const Claims claims = claim(source_, family_of(source_.config()));
  for (size_t i = 0; i < source_.tensors().size(); ++i)
    names_.push_back(
        unpacked_name(source_.tensors()[i], claims.of_tensors()[i]).value_or(std::string()));
}

uint64_t StepWriter::bytes(const StepImage& image) const {
  uint64_t bytes = source_.data_bytes();
  const std::vector<Parameter>& parameters = model_.parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    bytes += image.moments[i].first.nbytes() + image.moments[i].second.nbytes();
    if (!image.averages.empty() && image.averages[i].defined()) bytes += image.averages[i].nbytes();
    if (needs_master(parameters[i])) bytes += image.weights[i].nbytes();
    for (const DiskTensor& disk : parameters[i].disk) {
      if (!is_packed(disk)) continue;
      bytes += static_cast<uint64_t>(disk.slice.rows * disk.slice.columns) * 2;  // as bfloat16
    }
  }
  return bytes;
}

fs::path StepWriter::write(const fs::path& out, const StepImage& image,
                           const std::string& recipe) const {
  const std::string name = step_name(image.state.step);
  require_space(out, bytes(image));
  Staging staging(out / name, "", Staging::Existing::Replace);
  const std::vector<Parameter>& parameters = model_.parameters();
  Trained trained = trained_tensors(parameters, image);
  if (model_.is_moue()) add_state(image, trained);
  Written written;
  write_weights(source_, std::move(trained), names_, staging.path(), written);
  Manifest manifest = write_rest(model_, source_, image.pool, recipe, staging.path(), written);
  write_training(parameters, image, staging.path(), manifest);
  write_manifest(staging.path(), manifest);
  staging.commit();
  write_file_whole(out / "latest", name + "\n");
  return out / name;
}

}  // namespace moue
