// Words for messages: quoted names, lists, counts, and what a mistyped word may have meant.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moue {

/// "a, b, c".
std::string join(std::span<const std::string> words, std::string_view separator = ", ");

/// The first `most` words and how many follow: "a, b and 90 more".
std::string join_some(std::span<const std::string> words, size_t most = 20);

/// The text fit for a message: control bytes and broken UTF-8 as \xNN, cut with "..." after `most`
/// bytes.
std::string printable(std::string_view text, size_t most = 120);

/// 'text', made printable.
std::string in_quotes(std::string_view text, size_t most = 120);

/// "1 shard", "3 shards".
std::string counted(uint64_t count, std::string_view noun);

/// "1.5 MiB".
std::string mib_text(uint64_t bytes);

/// What the system says of an errno value.
std::string error_text(int error);

/// The candidate fewest edits away, where that is near enough to be a slip of the keys.
std::optional<std::string> nearest(std::string_view word, std::span<const std::string> candidates);

/// True where every byte belongs to a well-formed UTF-8 sequence.
bool is_utf8(std::string_view text);

}  // namespace moue
