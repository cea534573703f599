// Windows of a token file as tensors: what measure, train and validate evaluate on.
#pragma once

#include <ATen/core/Tensor.h>

#include "tokens/tokens.h"

namespace moue {

/// A token file with at least one window of `length` inputs, checked against the vocabulary. Throws
/// Error naming file and position.
TokenFile open_tokens(const std::filesystem::path& file, const std::string& token_type,
                      int64_t length, int64_t vocabulary);

/// Non-overlapping windows, int64 [n, length + 1], targets shifted by one, from the file's start;
/// at most `most` of them (0 = all). The incomplete tail is dropped.
at::Tensor windows_of(const TokenFile& tokens, int64_t length, int64_t most = 0);

/// Which targets of those windows count, bool [n, length]; undefined without a mask: all.
at::Tensor masks_of(const TokenFile& tokens, int64_t length, int64_t most = 0);

/// [1, tokens + 1] tokens drawn from `seed`, uniform over the vocabulary.
at::Tensor seeded_window(int64_t tokens, int64_t vocabulary, uint64_t seed);

}  // namespace moue
