// Windows of a token file as tensors.
#include "model/windows.h"

#include "core/philox.h"
#include "model/torch.h"
#include "moue/error.h"

namespace moue {

TokenFile open_tokens(const std::filesystem::path& file, const std::string& token_type,
                      int64_t length, int64_t vocabulary) {
  TokenFile tokens(file, token_type);
  tokens.check_vocabulary(vocabulary);
  if (tokens.num_windows(length) < 1) {
    fail("tokens", "{} has {} tokens, one window needs {}; lower --length", file.string(),
         tokens.size(), length + 1);
  }
  return tokens;
}

at::Tensor windows_of(const TokenFile& tokens, int64_t length, int64_t most) {
  const int64_t all = tokens.num_windows(length);
  const int64_t count = most > 0 ? std::min(most, all) : all;
  at::Tensor windows = at::empty({count, length + 1}, at::kLong);
  for (int64_t i = 0; i < count; ++i) {
    tokens.read<int64_t>(i * length,
                         {windows[i].data_ptr<int64_t>(), static_cast<size_t>(length + 1)});
  }
  return windows;
}

at::Tensor masks_of(const TokenFile& tokens, int64_t length, int64_t most) {
  if (!tokens.has_mask()) return {};
  const int64_t all = tokens.num_windows(length);
  const int64_t count = most > 0 ? std::min(most, all) : all;
  at::Tensor mask = at::empty({count, length}, at::kByte);
  for (int64_t i = 0; i < count; ++i)
    tokens.read_mask(i * length + 1, {mask[i].data_ptr<uint8_t>(), static_cast<size_t>(length)});
  return mask.ne(0);
}

at::Tensor seeded_window(int64_t tokens, int64_t vocabulary, uint64_t seed) {
  at::Tensor window = at::empty({1, tokens + 1}, at::kLong);
  for (int64_t i = 0; i <= tokens; ++i) {
    window.data_ptr<int64_t>()[i] =
        static_cast<int64_t>(philox(seed, {static_cast<uint32_t>(i), 0, 0, 0})[0] % vocabulary);
  }
  return window;
}

}  // namespace moue
