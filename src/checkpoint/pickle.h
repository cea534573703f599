// The pickle inside a file of torch.save: a dict of names and tensors, and nothing else.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "moue/safetensors.h"

namespace moue {

constexpr uint64_t kMostPickleBytes = 100'000'000;

/// Views into the pickled bytes, which must live on.
struct PickledTensor {
  std::string_view name;
  std::string_view storage;       ///< its key: the entry "data/KEY" of the zip file
  uint64_t storage_elements = 0;  ///< as pickled; of bytes where storage_is_bytes
  bool storage_is_bytes = false;
  Dtype dtype = Dtype::F32;
  int64_t offset = 0;  ///< into the storage, in elements
  std::vector<int64_t> shape, strides;
};

/// Runs the pickle as data: only the opcodes and globals that tensors need exist, nothing is
/// called. Numbers are as pickled, not checked. Throws Error "[pytorch] FILE: ...".
std::vector<PickledTensor> read_pickle(std::string_view bytes, const std::string& file);

}  // namespace moue
