// Config: typed access to config.json.
#include "moue/config.h"

#include "core/json.h"
#include "core/text.h"
#include "moue/error.h"

#include <nlohmann/json.hpp>

#include <limits>

namespace moue {
namespace {

using Json = Config::Json;

std::string seen(const Json& value) {
  return printable(value.dump(-1, ' ', false, Json::error_handler_t::replace), 60);
}

std::string names(Config::Keys keys) {
  std::string text;
  for (std::string_view key : keys) text += fmt::format("{}'{}'", text.empty() ? "" : " or ", key);
  return text;
}

[[noreturn]] void fail_absent(const std::string& origin, const Json& json, Config::Keys keys) {
  std::vector<std::string> known;
  for (const auto& item : json.items()) {
    if (!item.value().is_null()) known.push_back(item.key());
  }
  const auto near = nearest(*keys.begin(), known);
  fail("config", "{}: no key {}{}", origin, names(keys),
       near ? fmt::format("; did you mean {}?", in_quotes(*near)) : "");
}

[[noreturn]] void fail_type(const std::string& origin, std::string_view key, const Json& value,
                            std::string_view wanted) {
  fail("config", "{}: {} is {}, wanted {}", origin, key, seen(value), wanted);
}

int64_t as_integer(const std::string& origin, std::string_view key, const Json& value) {
  constexpr uint64_t kMost = std::numeric_limits<int64_t>::max();
  if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<uint64_t>() > kMost)) {
    fail_type(origin, key, value, "an integer of 64 bits");
  }
  return value.get<int64_t>();
}

// The first key that is present, for messages.
template <class Has>
std::string_view present(Config::Keys keys, Has has) {
  for (std::string_view key : keys) {
    if (has(key)) return key;
  }
  return *keys.begin();
}

}  // namespace

Config Config::parse(std::string_view text, std::string origin) {
  Json json = parse_json(text, origin, "config");
  return Config(std::move(json), std::move(origin));
}

Config Config::read(const std::filesystem::path& file) {
  return Config(read_json(file, "config"), printable(file.native(), 400));
}

Config::Config(Json json, std::string origin)
    : json_(std::make_shared<const Json>(std::move(json))), origin_(std::move(origin)) {
  if (!json_->is_object()) fail("config", "{} is {}, wanted an object", origin_, seen(*json_));
}

const Json* Config::raw(std::string_view key) const {
  const std::string_view whole = key;
  const Json* at = json_.get();
  while (true) {
    const size_t dot = key.find('.');
    if (at->is_null()) return nullptr;
    if (!at->is_object()) {
      fail_type(origin_, whole.substr(0, whole.size() - key.size() - 1), *at, "an object");
    }
    const auto it = at->find(std::string(key.substr(0, dot)));
    if (it == at->end()) return nullptr;
    at = &*it;
    if (dot == key.npos) return at;
    key.remove_prefix(dot + 1);
  }
}

const Json* Config::find(std::string_view key) const {
  const Json* value = raw(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

const Json* Config::find(Keys keys) const {
  for (std::string_view key : keys) {
    if (const Json* value = find(key)) return value;
  }
  return nullptr;
}

bool Config::has(std::string_view key) const { return find(key) != nullptr; }

bool Config::is_null(std::string_view key) const {
  const Json* value = raw(key);
  return value != nullptr && value->is_null();
}

int64_t Config::integer(Keys keys) const {
  const Json* value = find(keys);
  if (value == nullptr) fail_absent(origin_, *json_, keys);
  return as_integer(origin_, present(keys, [&](auto key) { return has(key); }), *value);
}

int64_t Config::integer(Keys keys, int64_t fallback) const {
  return find(keys) == nullptr ? fallback : integer(keys);
}

double Config::real(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) fail_absent(origin_, *json_, {key});
  if (!value->is_number()) fail_type(origin_, key, *value, "a number");
  return value->get<double>();
}

double Config::real(std::string_view key, double fallback) const {
  return has(key) ? real(key) : fallback;
}

double Config::real(Keys keys, double fallback) const {
  for (std::string_view key : keys) {
    if (has(key)) return real(key);
  }
  return fallback;
}

bool Config::boolean(std::string_view key, bool fallback) const {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) fail_type(origin_, key, *value, "true or false");
  return value->get<bool>();
}

std::string Config::string(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) fail_absent(origin_, *json_, {key});
  if (!value->is_string()) fail_type(origin_, key, *value, "a string");
  return value->get<std::string>();
}

std::string Config::string(std::string_view key, std::string fallback) const {
  return has(key) ? string(key) : std::move(fallback);
}

std::vector<std::string> Config::strings(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return {};
  if (!value->is_array()) fail_type(origin_, key, *value, "a list of strings");
  std::vector<std::string> out;
  for (const Json& item : *value) {
    if (!item.is_string()) fail_type(origin_, key, *value, "a list of strings");
    out.push_back(item.get<std::string>());
  }
  return out;
}

std::vector<int64_t> Config::integers(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return {};
  if (!value->is_array()) fail_type(origin_, key, *value, "a list of integers");
  std::vector<int64_t> out;
  for (const Json& item : *value) out.push_back(as_integer(origin_, key, item));
  return out;
}

std::vector<double> Config::reals(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return {};
  if (!value->is_array()) fail_type(origin_, key, *value, "a list of numbers");
  std::vector<double> out;
  for (const Json& item : *value) {
    if (!item.is_number()) fail_type(origin_, key, *value, "a list of numbers");
    out.push_back(item.get<double>());
  }
  return out;
}

std::string Config::text() const { return json_->dump(2) + "\n"; }

}  // namespace moue
