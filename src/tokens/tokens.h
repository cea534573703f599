// TokenFile: tokens on disk (raw, llm.c, Megatron), read by position without loading the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moue {

/// One stream of tokens: raw .u16/.u32, llm.c .bin, or Megatron .idx + .bin (named by either file
/// or by their common stem). A file NAME.mask beside it, one byte of 0 or 1 a token, says which
/// tokens count as targets. Copies share one open file; reads are safe from several threads.
class TokenFile {
 public:
  /// `token_type`: "u16", "u32", or "" = by the file's name or header. Throws Error "[tokens] FILE,
  /// ..." where a number in the file disagrees with the bytes that are there.
  explicit TokenFile(const std::filesystem::path& file, std::string_view token_type = "");

  const std::filesystem::path& path() const;
  uint64_t size() const;  ///< in tokens
  bool has_mask() const;

  /// Every token must lie below `vocabulary`: files up to 64 MiB are read through now, all others
  /// as they are read. Throws Error naming file, position and token.
  void check_vocabulary(int64_t vocabulary);

  /// Tokens position, position + 1, ... as int32_t, uint32_t or int64_t. Throws Error beyond the
  /// end of the file, for a token outside the vocabulary (2^31 before check_vocabulary), and where
  /// the file has shrunk.
  template <class Integer>
  void read(uint64_t position, std::span<Integer> out) const;
  /// 1 where the token counts as a target; all 1 without a mask.
  void read_mask(uint64_t position, std::span<uint8_t> out) const;

  /// The first token of each document and, behind them, size(); empty where the format knows no
  /// documents (all but Megatron's). Eight bytes of memory a document.
  std::vector<uint64_t> documents() const;

  /// Full windows of `length` inputs whose targets are shifted by one; the incomplete tail is
  /// dropped. Window w reads tokens w * length to w * length + length, both included.
  int64_t num_windows(int64_t length) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
  int64_t vocabulary_ = int64_t{1} << 31;
};

}  // namespace moue
