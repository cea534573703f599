// The journal of a staging directory: written line by line, read with suspicion, held against the
// files.
#include "core/staging_journal.h"

#include "core/disk.h"
#include "core/sha256.h"
#include "core/text.h"
#include "core/tree.h"
#include "moue/error.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <sstream>

namespace moue {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kBlock = 4096;
constexpr uint64_t kSamples = 16;

// Spread evenly from the first block to the last: a torn or swapped part shows in one of them.
std::string sampled(const InputFile& file) {
  Sha256 sha;
  std::array<std::byte, kBlock> block;
  const uint64_t blocks = (file.size() + kBlock - 1) / kBlock;
  const uint64_t count = std::min(blocks, kSamples);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t at = (count == 1 ? 0 : (blocks - 1) * i / (count - 1)) * kBlock;
    const auto part = std::span(block).first(std::min(kBlock, file.size() - at));
    file.read_at(at, part);
    sha.update(part);
  }
  return sha.hex();
}

bool is_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == name.npos &&
         name.find('\0') == name.npos;
}

// nlohmann's own exceptions stand for every line that is not one of ours.
std::pair<std::string, StagedFile> entry_of(const Json& json) {
  StagedFile file;
  file.digest = {json.at("bytes").get<uint64_t>(), json.at("sha256").get<std::string>()};
  file.identity = {json.at("inode").get<uint64_t>(), file.digest.bytes,
                   json.at("modified_ns").get<int64_t>(), json.at("changed_ns").get<int64_t>()};
  file.samples = json.at("samples").get<std::string>();
  return {json.at("name").get<std::string>(), std::move(file)};
}

}  // namespace

std::string journal_head(const std::string& job) { return Json{{"job", job}}.dump() + "\n"; }

std::string journal_line(const std::string& name, const StagedFile& file) {
  const Json json = {{"name", name},
                     {"bytes", file.digest.bytes},
                     {"sha256", file.digest.sha256},
                     {"inode", file.identity.inode},
                     {"modified_ns", file.identity.modified_ns},
                     {"changed_ns", file.identity.changed_ns},
                     {"samples", file.samples}};
  return json.dump() + "\n";
}

std::optional<StagedFiles> read_journal(const fs::path& directory, const std::string& job) {
  const fs::path path = directory / kStagingJournal;
  if (!is_file(path)) return std::nullopt;
  std::istringstream lines(read_whole_file(path, "files"));
  std::string line;
  if (!std::getline(lines, line) || line + "\n" != journal_head(job)) return std::nullopt;
  StagedFiles files;
  try {
    while (std::getline(lines, line) && !lines.eof()) {
      auto [name, file] = entry_of(Json::parse(line));
      if (is_name(name)) files.insert_or_assign(std::move(name), std::move(file));
    }
  } catch (const Json::exception&) {
  }
  return files;
}

StagedFile staged_file(const fs::path& file, const FileDigest& digest) {
  const InputFile input(file, "files");
  return {digest, input.identity(), sampled(input)};
}

bool is_as_noted(const fs::path& file, StagedFile& noted) {
  struct stat status {};
  if (disk::lstat(file, status) != 0 && errno != ENOENT) {
    fail_disk("files", "{} cannot be looked up: {}", file.native(), error_text(errno));
  }
  // A link may be of a file that others go on writing.
  if (!S_ISREG(status.st_mode) || status.st_nlink != 1) return false;
  StagedFile now = staged_file(file, noted.digest);
  if (now.identity.size != noted.digest.bytes || now.samples != noted.samples) return false;
  const bool untouched = now.identity == noted.identity;
  if (!untouched && sha256_of_file(file) != noted.digest.sha256) return false;
  noted = std::move(now);
  return true;
}

}  // namespace moue
