// What stands under a name, and directories: listed, made, synced, removed.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace moue {

/// True where something has that name, a link that leads nowhere too. Throws DiskError where the
/// disk does not say. So do the two below, which follow links.
bool stands(const std::filesystem::path& path);
bool is_file(const std::filesystem::path& path);
bool is_folder(const std::filesystem::path& path);

/// True for a link whose target is not there; says what that is.
bool leads_nowhere(const std::filesystem::path& path, std::filesystem::path& target);

/// The names in a directory, sorted. Throws Error "[stage] ... cannot be read".
std::vector<std::string> names_in(const std::filesystem::path& directory, std::string_view stage);

/// Paths relative to `directory` of all below it that is no directory, sorted; links are not
/// followed.
std::vector<std::string> files_below(const std::filesystem::path& directory,
                                     std::string_view stage);

/// Makes what is missing of a path. Returns what it made, outermost first. Throws Error "[stage]".
std::vector<std::filesystem::path> make_directories(const std::filesystem::path& path,
                                                    std::string_view stage);

/// Removes a directory and all in it, or a file, without following links; nothing where nothing
/// stands. Returns 0 or the errno of the first that could not be.
int remove_tree(const std::filesystem::path& path);

/// fsync of a directory and all files and directories in it; links are left out.
void sync_tree(const std::filesystem::path& directory, std::string_view stage);

/// The directory a name lies in: "." for a plain one.
std::filesystem::path parent_of(const std::filesystem::path& path);

}  // namespace moue
