// Manifest: what a written directory holds and what it was made of: moue-manifest.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moue {

constexpr std::string_view kManifestFile = "moue-manifest.json";

struct ManifestFile {
  std::string name;  ///< inside its directory: "config.json", "training/state.safetensors"
  uint64_t size = 0;
  std::optional<std::string> sha256;  ///< nothing for a linked file nobody has hashed yet
};

/// The same input gives the same text: no times, hosts, paths, thread counts.
struct Manifest {
  std::string tool;                 ///< "moue 0.1.0"
  std::string recipe;               ///< resolved, as TOML
  std::vector<ManifestFile> files;  ///< of this directory, without the manifest itself
  std::vector<ManifestFile> source_files;
  std::map<std::string, std::string> tensors;  ///< source tensor to what became of it: see Fate
};

/// What became of a tensor, as the manifest says it: "linked FILE", "copied FILE", "cast BF16
/// FILE", "trained FILE", "drawn FILE", each also with " as NAME" behind; or "dropped: WHY".
struct Fate {
  std::string file;  ///< "" where it was dropped
  std::string name;  ///< "" = as it was
};
Fate fate_of(std::string_view text);

/// Sorted by name, indented by one, with a final newline.
std::string manifest_text(const Manifest& manifest);

/// Throws Error "[manifest] FILE ..." for whatever is missing, unknown or not of its kind.
Manifest read_manifest(const std::filesystem::path& directory);

/// Writes moue-manifest.json into the directory, whole.
void write_manifest(const std::filesystem::path& directory, const Manifest& manifest);

/// How the directory differs from its manifest, one line a fault, empty where it does not: files
/// that are missing, of another size, not listed, and, with `hash`, of other bytes.
std::vector<std::string> manifest_faults(const Manifest& manifest,
                                         const std::filesystem::path& directory, bool hash);

}  // namespace moue
