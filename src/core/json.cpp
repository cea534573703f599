// Strict JSON on top of nlohmann's SAX parser: its DOM keeps the last of two equal keys silently.
#include "core/json.h"

#include "core/files.h"
#include "core/text.h"
#include "moue/error.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <iterator>
#include <unordered_set>
#include <vector>

namespace moue {
namespace {

using Json = nlohmann::ordered_json;

// Reports how far the parser has read, so that faults found in the handler have a place too.
class Cursor {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  Cursor(const char* at, const char** reached) : at_(at), reached_(reached) {}
  reference operator*() const { return *at_; }
  Cursor& operator++() {
    *reached_ = ++at_;
    return *this;
  }
  bool operator==(const Cursor& other) const { return at_ == other.at_; }
  bool operator!=(const Cursor& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  const char** reached_;
};

// Builds the value; objects are appended to directly, since ordered_map's own insertion is linear
// in its size.
class Builder {
 public:
  explicit Builder(int most_depth) : most_depth_(most_depth) {}

  bool null() { return put(nullptr); }
  bool boolean(bool value) { return put(value); }
  bool number_integer(int64_t value) { return put(value); }
  bool number_unsigned(uint64_t value) { return put(value); }
  bool number_float(double value, const std::string&) { return put(value); }
  bool string(std::string& value) { return put(std::move(value)); }
  bool binary(Json::binary_t&) { return false; }
  bool start_object(size_t) { return open(Json::object()); }
  bool end_object() { return close(); }
  bool start_array(size_t) { return open(Json::array()); }
  bool end_array() { return close(); }

  bool key(std::string& name) {
    if (!levels_.back().keys.insert(name).second) {
      fault_ = "key " + in_quotes(name) + " stands twice in one object";
      return false;
    }
    levels_.back().key = std::move(name);
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) {
    fault_ = json_fault(error.what());
    return false;
  }

  const std::string& fault() const { return fault_; }
  Json take() { return std::move(root_); }

 private:
  struct Level {
    Json* value;
    std::string key;
    std::unordered_set<std::string> keys;
  };

  // Where the next value belongs. Pointers to open containers stay valid: only the innermost one
  // grows.
  Json* place(Json value) {
    if (levels_.empty()) return &(root_ = std::move(value));
    Level& level = levels_.back();
    if (level.value->is_array()) {
      auto& array = level.value->get_ref<Json::array_t&>();
      return &array.emplace_back(std::move(value));
    }
    Json::object_t::Container& object = level.value->get_ref<Json::object_t&>();
    return &object.emplace_back(std::move(level.key), std::move(value)).second;
  }
  bool put(Json value) {
    place(std::move(value));
    return true;
  }
  bool open(Json container) {
    if (levels_.size() >= static_cast<size_t>(most_depth_)) {
      fault_ = fmt::format("more than {} levels deep", most_depth_);
      return false;
    }
    levels_.push_back({place(std::move(container)), {}, {}});
    return true;
  }
  bool close() {
    levels_.pop_back();
    return true;
  }

  int most_depth_;
  Json root_;
  std::vector<Level> levels_;
  std::string fault_;
};

}  // namespace

std::string json_forgiven_fault(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) return "starts with a byte order mark, wanted plain UTF-8";
  const size_t nul = text.find('\0');
  return nul == text.npos ? "" : fmt::format("has a NUL at byte {}, wanted text", nul);
}

std::string json_fault(std::string_view what) {
  if (const size_t close = what.find("] "); close != what.npos) what.remove_prefix(close + 2);
  if (what.starts_with("parse error at")) {
    if (const size_t colon = what.find(": "); colon != what.npos) what.remove_prefix(colon + 2);
  }
  return printable(what.substr(0, what.find("; last read: ")), 160);
}

Json parse_json(std::string_view text, std::string_view origin, std::string_view stage,
                int most_depth) {
  if (const std::string fault = json_forgiven_fault(text); !fault.empty()) {
    fail(stage, "{} {}", origin, fault);
  }
  const char* reached = text.data();
  Builder builder(most_depth);
  const bool whole = Json::sax_parse(Cursor(text.data(), &reached),
                                     Cursor(text.data() + text.size(), &reached), &builder);
  if (whole) return builder.take();
  const std::string_view seen(text.data(), static_cast<size_t>(reached - text.data()));
  const auto line = std::count(seen.begin(), seen.end(), '\n') + 1;
  const size_t column = seen.size() - (seen.rfind('\n') + 1);  // npos + 1 is 0
  fail(stage, "{}: line {}, column {}: {}", origin, line, column, builder.fault());
}

Json read_json(const std::filesystem::path& file, std::string_view stage, uint64_t most_bytes) {
  return parse_json(read_whole_file(file, stage, most_bytes), printable(file.native(), 400), stage);
}

}  // namespace moue
