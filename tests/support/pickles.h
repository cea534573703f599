// Pickles and files of torch.save made by hand, and the catalogue of those that must be refused.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "moue/safetensors.h"
#include "support/malformed.h"

namespace moue::test {

// Pieces of a pickle.
std::string pickled_text(std::string_view text);
std::string pickled_int(int64_t value);
std::string pickled_tuple(const std::vector<int64_t>& numbers);
std::string pickled_global(std::string_view module, std::string_view name);
std::string pickled_storage(std::string_view type, std::string_view key, int64_t elements);
/// _rebuild_tensor_v2 of a FloatStorage "0" of six elements, or of `storage`.
std::string pickled_tensor(int64_t offset, const std::vector<int64_t>& shape,
                           const std::vector<int64_t>& strides, std::string storage = {});
/// Protocol, one dict of the given items (keys and values in turn), end.
std::string pickled_dict(std::string_view items);

/// A file of torch.save around a pickle, with 24 bytes as storage "0".
std::string torch_file(std::string_view pickle);
/// A file of torch.save of contiguous tensors.
std::string torch_file(const std::vector<TensorView>& tensors);

/// Each with what follows "[pytorch] FILE: ". A pickle that runs anything makes `canary`.
std::vector<FileCase> malformed_pickles(const std::string& canary);
std::vector<FileCase> malformed_zips();
/// Files of torch.save that are odd and load.
std::vector<FileCase> odd_torch_files();

}  // namespace moue::test
