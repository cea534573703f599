// The files of a model directory: which form it has, which of them hold weights.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/index.h"

namespace moue {

/// Files that hold weights, by form. Where a directory has several, the first is read.
enum class ModelForm : uint8_t { Safetensors, PyTorch, Consolidated };

struct ModelFiles {
  ModelForm form = ModelForm::Safetensors;
  std::string config;              ///< "config.json", or "params.json" of a consolidated model
  std::vector<std::string> names;  ///< of weight files, sorted
  std::optional<Index> index;
};

/// Where a model lies: `directory` itself, or, where that is a model of Hugging Face's cache
/// ("models--ORG--NAME"), its snapshot of "main" or its only one.
std::filesystem::path find_model(const std::filesystem::path& directory);

/// Throws Error for a directory without config or weights, with several of them that disagree, or
/// with missing shards.
ModelFiles find_files(const std::filesystem::path& directory);

/// Files that are carried along: no weights, no description of weights, no config. Sorted.
std::vector<std::string> list_other_files(const std::filesystem::path& directory,
                                          const ModelFiles& files);

}  // namespace moue
