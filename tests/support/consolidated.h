// A Mixtral of transformers, written in Mistral's own form or as PyTorch files.
#pragma once

#include <filesystem>

#include "moue/checkpoint.h"

namespace moue::test {

enum class Names : uint8_t {
  EachExpert,
  Stacked
};  ///< feed_forward.experts.0.w1, block_sparse_moe.w1

struct ConsolidatedForm {
  Names names = Names::EachExpert;
  bool pickled = false;  ///< consolidated.00.pth and so on, else consolidated.safetensors
  int files = 1;         ///< layers dealt out to them
  bool rotated = true;   ///< q and k in Mistral's order of rows
};

/// params.json and consolidated*, in a directory that is made.
void write_consolidated(const Checkpoint& source, const ConsolidatedForm& form,
                        const std::filesystem::path& to);

/// config.json and pytorch_model*.bin, with an index where there are several.
void write_pytorch(const Checkpoint& source, int files, const std::filesystem::path& to);

}  // namespace moue::test
