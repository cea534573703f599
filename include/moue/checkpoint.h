// Checkpoint: a model directory, read lazily: config.json, shards, every other file by name.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "moue/config.h"
#include "moue/weight_file.h"

namespace moue {

/// A directory with config.json and model.safetensors or model.safetensors.index.json; or with
/// pytorch_model.bin and its index; or in Mistral's form, params.json and consolidated*, which is
/// then seen in transformers' names, shapes and order of rows. Headers are read and checked when it
/// is opened (every tensor in exactly one shard, index and shards agree, names stay inside the
/// directory); bytes are read on demand. Copies share one state.
class Checkpoint {
 public:
  struct Contents {
    std::filesystem::path directory;
    Config config;
    std::vector<WeightFile> files;
    std::vector<std::string> file_names;   ///< of `files`, plain names inside the directory
    std::vector<std::string> other_files;  ///< neither weights, config.json nor index; sorted
    std::vector<TensorInfo> tensors;       ///< by file, then offset
    std::unordered_map<std::string_view, uint32_t> by_name;  ///< keys view into `tensors`
    std::string config_file = "config.json";                 ///< or "params.json"
  };
  explicit Checkpoint(std::shared_ptr<const Contents> contents) : contents_(std::move(contents)) {}

  const std::filesystem::path& directory() const { return contents_->directory; }
  const Config& config() const { return contents_->config; }
  const std::string& config_file() const { return contents_->config_file; }
  /// Is every tensor as it lies in a safetensors file, under its own name?
  bool is_plain() const;
  const std::vector<WeightFile>& files() const { return contents_->files; }
  const std::vector<std::string>& file_names() const { return contents_->file_names; }
  const std::vector<std::string>& other_files() const { return contents_->other_files; }
  const std::vector<TensorInfo>& tensors() const { return contents_->tensors; }
  const TensorInfo* find(std::string_view name) const;
  const TensorInfo& at(std::string_view name) const;  ///< throws Error naming directory and tensor
  uint64_t data_bytes() const;                        ///< sum over tensors

  /// Positioned read of part of a tensor; safe from several threads.
  void read(const TensorInfo& tensor, uint64_t from, std::span<std::byte> out) const {
    files()[tensor.file].read(tensor, from, out);
  }
  std::vector<std::byte> read(const TensorInfo& tensor) const {
    return files()[tensor.file].read(tensor);
  }
  /// The values of a float tensor (F64, F32, F16, BF16) or integer tensor as double.
  std::vector<double> values(const TensorInfo& tensor) const {
    return files()[tensor.file].values(tensor);
  }

 private:
  std::shared_ptr<const Contents> contents_;
};

/// Throws Error "[checkpoint] ..." listing every fault of a kind at once.
Checkpoint open_checkpoint(const std::filesystem::path& directory);

}  // namespace moue
