// Manifest: written, read back strictly, and held against the files.
#include "checkpoint/manifest.h"

#include "checkpoint/index.h"
#include "core/files.h"
#include "core/json.h"
#include "core/sha256.h"
#include "core/text.h"
#include "core/tree.h"
#include "moue/error.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <set>

namespace moue {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;
using Files = std::vector<ManifestFile>;

constexpr int64_t kVersion = 1;

Json files_json(Files files) {
  std::sort(files.begin(), files.end(),
            [](const ManifestFile& a, const ManifestFile& b) { return a.name < b.name; });
  Json list = Json::array();
  for (const ManifestFile& file : files) {
    Json entry = {{"name", file.name}, {"size", file.size}};
    entry["sha256"] = file.sha256 ? Json(*file.sha256) : Json(nullptr);
    list.push_back(std::move(entry));
  }
  return list;
}

bool is_digest(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == text.npos;
}

// A relative path that stays inside: plain names joined by single slashes.
bool is_inner_path(std::string_view path) {
  while (true) {
    const size_t slash = path.find('/');
    if (!is_plain_name(path.substr(0, slash))) return false;
    if (slash == path.npos) return true;
    path.remove_prefix(slash + 1);
  }
}

class ManifestReader {
 public:
  ManifestReader(const Json& json, std::string name) : json_(json), name_(std::move(name)) {
    if (!json_.is_object()) fail("manifest", "{} is no object", name_);
  }

  Manifest read() {
    const Json& version = json_at("moue_manifest");
    if (version != kVersion) {
      fail("manifest", "{}: moue_manifest is {}, this moue reads {}", name_,
           printable(version.dump(), 40), kVersion);
    }
    Manifest manifest;
    manifest.tool = text_at("tool");
    manifest.recipe = text_at("recipe");
    manifest.files = files_at("files");
    manifest.source_files = files_at("source_files");
    const Json& tensors = json_at("tensors");
    if (!tensors.is_object()) fail("manifest", "{}: tensors is no object", name_);
    for (const auto& [tensor, fate] : tensors.get_ref<const Json::object_t&>()) {
      if (!fate.is_string())
        fail("manifest", "{}: tensors.{} is no string", name_, printable(tensor));
      manifest.tensors.emplace(tensor, fate.get<std::string>());
    }
    return manifest;
  }

 private:
  const Json& json_at(const char* key) const {
    const auto it = json_.find(key);
    if (it == json_.end()) fail("manifest", "{} has no {}", name_, key);
    return *it;
  }
  std::string text_at(const char* key) const {
    const Json& value = json_at(key);
    if (!value.is_string()) fail("manifest", "{}: {} is no string", name_, key);
    return value.get<std::string>();
  }
  Files files_at(const char* key) const {
    const Json& list = json_at(key);
    if (!list.is_array()) fail("manifest", "{}: {} is no list", name_, key);
    Files files;
    std::set<std::string> names;
    for (const Json& entry : list) {
      files.push_back(file_of(key, entry));
      if (!names.insert(files.back().name).second) {
        fail("manifest", "{}: {} lists {} twice", name_, key, in_quotes(files.back().name));
      }
    }
    return files;
  }
  ManifestFile file_of(const char* key, const Json& entry) const {
    const auto wrong = [&] {
      fail("manifest",
           "{}: {} holds {}, wanted a name inside the directory, a size and a sha256 or null",
           name_, key, printable(entry.dump(-1, ' ', false, Json::error_handler_t::replace), 100));
    };
    if (!entry.is_object() || entry.size() != 3) wrong();
    const Json name = entry.value("name", Json());
    const Json size = entry.value("size", Json());
    const Json sha = entry.value("sha256", Json(0));
    if (!name.is_string() || !is_inner_path(name.get_ref<const std::string&>())) wrong();
    if (!size.is_number_unsigned()) wrong();
    if (!sha.is_null() && !(sha.is_string() && is_digest(sha.get_ref<const std::string&>())))
      wrong();
    ManifestFile file{name.get<std::string>(), size.get<uint64_t>(), std::nullopt};
    if (sha.is_string()) file.sha256 = sha.get<std::string>();
    return file;
  }

  const Json& json_;
  std::string name_;
};

// What is wrong with one listed file; empty where nothing is.
std::string file_fault(const ManifestFile& file, const fs::path& directory, bool hash) {
  const std::string name = in_quotes(file.name);
  if (!stands(directory / file.name)) return fmt::format("{} is missing", name);
  try {
    const uint64_t size = InputFile(directory / file.name, "manifest").size();
    if (size != file.size)
      return fmt::format("{} has {} bytes, listed with {}", name, size, file.size);
    if (!hash || !file.sha256) return "";
    const std::string sha = sha256_of_file(directory / file.name);
    if (sha != *file.sha256) {
      return fmt::format("{} has sha256 {}, listed with {}", name, sha, *file.sha256);
    }
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

Fate fate_of(std::string_view text) {
  if (text.starts_with("dropped: ")) return {};
  const size_t space = text.find(' ');
  const std::string_view how = text.substr(0, space);
  text.remove_prefix(std::min(text.size(), how.size() + 1));
  if (how == "cast") text.remove_prefix(std::min(text.size(), text.find(' ') + 1));
  const size_t as = text.rfind(" as ");
  if (as == text.npos) return {std::string(text), {}};
  return {std::string(text.substr(0, as)), std::string(text.substr(as + 4))};
}

std::string manifest_text(const Manifest& manifest) {
  Json json;
  json["moue_manifest"] = kVersion;
  json["tool"] = manifest.tool;
  json["recipe"] = manifest.recipe;
  json["files"] = files_json(manifest.files);
  json["source_files"] = files_json(manifest.source_files);
  Json tensors = Json::object();
  Json::object_t::Container& entries = tensors.get_ref<Json::object_t&>();
  for (const auto& [tensor, fate] : manifest.tensors) entries.emplace_back(tensor, fate);
  json["tensors"] = std::move(tensors);
  return json.dump(1) + "\n";
}

Manifest read_manifest(const fs::path& directory) {
  const fs::path file = directory / kManifestFile;
  const Json json = read_json(file, "manifest");
  return ManifestReader(json, printable(file.native(), 400)).read();
}

void write_manifest(const fs::path& directory, const Manifest& manifest) {
  write_file_whole(directory / kManifestFile, manifest_text(manifest));
}

std::vector<std::string> manifest_faults(const Manifest& manifest, const fs::path& directory,
                                         bool hash) {
  std::vector<std::string> faults;
  std::set<std::string_view> listed = {kManifestFile};
  for (const ManifestFile& file : manifest.files) {
    listed.insert(file.name);
    if (std::string fault = file_fault(file, directory, hash); !fault.empty()) {
      faults.push_back(std::move(fault));
    }
  }
  std::vector<std::string> unlisted;
  for (const std::string& name : files_below(directory, "manifest")) {
    if (!listed.contains(name)) unlisted.push_back(in_quotes(name) + " is not listed");
  }
  faults.insert(faults.end(), unlisted.begin(), unlisted.end());
  return faults;
}

}  // namespace moue
