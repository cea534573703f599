// Puts a file of the source into the new directory without moving its bytes, where the file system
// can.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace moue {

/// How a file came to be there, best first.
enum class LinkKind : uint8_t { Reflink, HardLink, Symlink, Copy };
std::string_view to_string(LinkKind kind);

/// Makes `to` (which must not exist) hold what `from` holds: a reflink, else a hard link, else a
/// symbolic link, else a copy. `from` may itself be a link, as in Hugging Face caches: what is
/// linked is the file behind it. It is opened for reading only.
LinkKind link_file(const std::filesystem::path& from, const std::filesystem::path& to);

/// Makes `to` an independent copy: a reflink, else a copy of the bytes.
LinkKind clone_file(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace moue
