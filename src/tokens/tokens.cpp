// Positioned reads of tokens and mask, each token checked against the vocabulary.
#include "tokens/tokens.h"

#include "core/files.h"
#include "core/tree.h"
#include "moue/error.h"
#include "tokens/layout.h"

#include <algorithm>
#include <vector>

namespace moue {

namespace fs = std::filesystem;

struct TokenFile::State {
  TokenLayout layout;
  InputFile data;
  std::optional<InputFile> mask;

  explicit State(TokenLayout where) : layout(std::move(where)), data(layout.data, "tokens") {
    const fs::path beside = fs::path(layout.data).replace_extension(".mask");
    if (!stands(beside)) return;
    mask.emplace(beside, "tokens");
    if (mask->size() == layout.count) return;
    fail("tokens", "{} is {} bytes, wanted one for each of the {} tokens of {}", beside.string(),
         mask->size(), layout.count, layout.data.string());
  }

  void check_range(uint64_t position, uint64_t count) const {
    if (position <= layout.count && count <= layout.count - position) return;
    fail("tokens", "{} has {} tokens, wanted {} from token {}", layout.data.string(), layout.count,
         count, position);
  }
};

TokenFile::TokenFile(const fs::path& file, std::string_view token_type)
    : state_(std::make_shared<const State>(token_layout(file, token_type))) {}

const fs::path& TokenFile::path() const { return state_->layout.data; }
uint64_t TokenFile::size() const { return state_->layout.count; }
bool TokenFile::has_mask() const { return state_->mask.has_value(); }

void TokenFile::check_vocabulary(int64_t vocabulary) {
  constexpr uint64_t kSmall = uint64_t{64} << 20;
  constexpr uint64_t kPiece = uint64_t{1} << 16;
  vocabulary_ = std::min(vocabulary, int64_t{1} << 31);
  if (size() * width_of(state_->layout.element) > kSmall) return;
  std::vector<int32_t> piece(std::min(kPiece, size()));
  for (uint64_t position = 0; position < size(); position += piece.size()) {
    const uint64_t count = std::min<uint64_t>(piece.size(), size() - position);
    read(position, std::span(piece).first(count));
  }
}

template <class Integer>
void TokenFile::read(uint64_t position, std::span<Integer> out) const {
  state_->check_range(position, out.size());
  const Element element = state_->layout.element;
  const uint64_t width = width_of(element);
  constexpr uint64_t kPiece = 32768;  // bytes
  std::byte bytes[kPiece];
  for (size_t first = 0; first < out.size(); first += kPiece / width) {
    const size_t count = std::min<size_t>(kPiece / width, out.size() - first);
    state_->data.read_at(state_->layout.offset + (position + first) * width,
                         std::span(bytes).first(count * width));
    for (size_t i = 0; i < count; ++i) {
      const int64_t token = decoded(element, bytes + i * width);
      if (token < 0 || token >= vocabulary_) {
        fail("tokens", "{} token {} is {}, wanted 0 to {}; was it made with another tokenizer?",
             path().string(), position + first + i, token, vocabulary_ - 1);
      }
      out[first + i] = static_cast<Integer>(token);
    }
  }
}

template void TokenFile::read(uint64_t, std::span<int32_t>) const;
template void TokenFile::read(uint64_t, std::span<uint32_t>) const;
template void TokenFile::read(uint64_t, std::span<int64_t>) const;

void TokenFile::read_mask(uint64_t position, std::span<uint8_t> out) const {
  state_->check_range(position, out.size());
  if (!state_->mask) {
    std::ranges::fill(out, uint8_t{1});
    return;
  }
  state_->mask->read_at(position, std::as_writable_bytes(out));
  const auto bad = std::ranges::find_if(out, [](uint8_t value) { return value > 1; });
  if (bad != out.end()) {
    fail("tokens", "{} byte {} is {}, wanted 0 or 1", state_->mask->path().string(),
         position + static_cast<uint64_t>(bad - out.begin()), *bad);
  }
}

std::vector<uint64_t> TokenFile::documents() const { return document_bounds(state_->layout); }

int64_t TokenFile::num_windows(int64_t length) const {
  if (length < 1) fail("tokens", "length is {}, wanted at least 1", length);
  return static_cast<int64_t>((size() - 1) / static_cast<uint64_t>(length));
}

}  // namespace moue
