// Config: a model's config.json with typed access; order and unknown fields are kept.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moue {

/// Keys may be dotted paths ("rope_parameters.rope_theta"). A null value counts as absent. Where a
/// list of keys is taken, the first present one wins (the field's names drift between releases).
/// Every accessor throws Error naming the file, the key, the value seen and the type wanted.
class Config {
 public:
  using Json = nlohmann::ordered_json;
  using Keys = std::initializer_list<std::string_view>;

  /// Parses strictly: UTF-8, an object, no duplicate keys, depth at most 64. `origin` names it in
  /// errors.
  static Config parse(std::string_view text, std::string origin);
  static Config read(const std::filesystem::path& file);
  explicit Config(Json json, std::string origin = "config.json");

  bool has(std::string_view key) const;
  bool is_null(std::string_view key) const;  ///< there, and null: absent to all but this
  int64_t integer(std::string_view key) const { return integer({key}); }
  int64_t integer(std::string_view key, int64_t fallback) const { return integer({key}, fallback); }
  int64_t integer(Keys keys) const;
  int64_t integer(Keys keys, int64_t fallback) const;
  double real(std::string_view key) const;
  double real(std::string_view key, double fallback) const;
  double real(Keys keys, double fallback) const;
  bool boolean(std::string_view key, bool fallback) const;
  std::string string(std::string_view key) const;
  std::string string(std::string_view key, std::string fallback) const;
  std::vector<std::string> strings(std::string_view key) const;  ///< empty when absent
  std::vector<int64_t> integers(std::string_view key) const;     ///< empty when absent
  std::vector<double> reals(std::string_view key) const;         ///< empty when absent

  const Json& json() const { return *json_; }
  const std::string& origin() const { return origin_; }
  /// The object as the source wrote it, in its key order, indented by two, with a final newline.
  std::string text() const;

 private:
  const Json* raw(std::string_view key) const;  // null included
  const Json* find(std::string_view key) const;
  const Json* find(Keys keys) const;

  std::shared_ptr<const Json> json_;
  std::string origin_;
};

}  // namespace moue
