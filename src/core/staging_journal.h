// What a staging directory remembers of itself: which files are complete, and how each was then.
#pragma once

#include "core/files.h"
#include "moue/digest.h"

#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace moue {

constexpr const char* kStagingJournal = ".moue-journal";

struct StagedFile {
  FileDigest digest;
  FileIdentity identity;
  std::string samples;  ///< SHA-256 of some 4 KiB blocks
};

using StagedFiles = std::map<std::string, StagedFile>;

/// One line each, ending in a newline: what job the directory is of; a file that is complete.
std::string journal_head(const std::string& job);
std::string journal_line(const std::string& name, const StagedFile& file);

/// The files of a directory's journal; nothing where it has none, or one of another job. A line
/// that is torn, and what follows it, is left aside.
std::optional<StagedFiles> read_journal(const std::filesystem::path& directory,
                                        const std::string& job);

/// The file as it now is.
StagedFile staged_file(const std::filesystem::path& file, const FileDigest& digest);

/// True where the file is what was noted: untouched by what the file system says, and by sampled
/// blocks; or, where the file system says otherwise, by its whole digest. Renews what is noted.
bool is_as_noted(const std::filesystem::path& file, StagedFile& noted);

}  // namespace moue
