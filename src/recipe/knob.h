// Knob: one setting, declared once for recipe files, flags, help, reference and the resolved
// recipe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "moue/recipe.h"

namespace moue {

/// Where a setting lives in a Recipe; the type decides how it is read and written. uint64_t is a
/// memory size.
using Field =
    std::variant<bool*, int64_t*, uint64_t*, double*, std::string*, std::filesystem::path*,
                 std::optional<int64_t>*, std::vector<double>*, std::vector<std::string>*>;

/// Something no knob takes: a date, a table where a value should stand. Kept for the message.
struct Foreign {
  std::string shown;
};

/// A value as a file or a flag spells it, before a knob has accepted it.
using Setting = std::variant<bool, int64_t, double, std::string, std::vector<double>,
                             std::vector<std::string>, Foreign>;

struct Knob {
  std::string key;  ///< "train.open.until"
  std::string help;
  Field (*field)(Recipe&);
  double least = 0;  ///< numbers: the smallest accepted value
  double most = 1e9;
  bool below_most = false;           ///< `most` itself is refused
  size_t length = 0;                 ///< lists: how many numbers
  std::vector<std::string> choices;  ///< strings: what is accepted
  bool several = false;              ///< strings: choices joined by commas
  std::string unset;                 ///< what an empty or absent value means
  std::string bare;                  ///< what a flag without a value means; "" = it needs one
  std::string free;                  ///< form of a string that is no choice: "FIRST:LAST"
  bool reproducible = true;          ///< decides the bytes of a result
  bool in_row = false;               ///< a key of each row of a RowList; no flag

  Knob& range(double low, double high) { return least = low, most = high, *this; }
  Knob& below(double high) { return most = high, below_most = true, *this; }
  Knob& one_of(std::vector<std::string> names) { return choices = std::move(names), *this; }
  Knob& some_of(std::vector<std::string> names) { return several = true, one_of(std::move(names)); }
  Knob& form(std::string words) { return free = std::move(words), *this; }
  Knob& pair() { return length = 2, *this; }
  Knob& empty_means(std::string meaning) { return unset = std::move(meaning), *this; }
  Knob& bare_means(std::string value) { return bare = std::move(value), *this; }
  Knob& row() { return in_row = true, *this; }
  Knob& local() { return reproducible = false, *this; }

  /// The key's table: "train.open" of "train.open.until", "" at the top.
  std::string_view table() const;
  /// The key without its first table, as flags spell it: "open.until".
  std::string_view flag() const;
  Field at(Recipe& recipe) const { return field(recipe); }
  /// Reads the current value; the recipe is not changed.
  Field at(const Recipe& recipe) const { return field(const_cast<Recipe&>(recipe)); }
};

/// A list of tables. Its rows pass through a place of their own in a Recipe, where knobs find them.
struct RowList {
  std::string_view table;     ///< "train.groups"
  std::string_view required;  ///< the key that no row may lack
  void (*clear)(Recipe&);     ///< empties the list
  void (*begin)(Recipe&);     ///< a row of defaults in its place
  bool (*add)(Recipe&);       ///< the row behind the others; false where it lacks the key
  size_t (*size)(const Recipe&);
  void (*show)(const Recipe& from, size_t row, Recipe& to);  ///< a row of the list in its place
};
/// The list with this table; nullptr where the table is none.
const RowList* find_rows(std::string_view table);

/// Every knob, tables in the order of the pipeline, a table's own keys before its subtables.
const std::vector<Knob>& knobs();
const Knob* find_knob(std::string_view key);

/// The tables whose keys are settings of a verb in this run; the first one's keys are its flags.
std::vector<std::string_view> tables_of(std::string_view verb, const Recipe& recipe);

/// Puts the value in its place. Returns what is wrong with it ("is 'abc', wanted an integer"), or
/// "".
std::string assign(const Knob& knob, Recipe& recipe, const Setting& setting);

/// What the words of a flag spell; words that do not fit the knob's type stay a string.
Setting setting_of(const Knob& knob, const std::vector<std::string>& words);

/// The value as TOML; "" where it is unset or empty and that has a meaning of its own.
std::string toml_text(const Knob& knob, const Recipe& recipe);
/// "INT", "FLOAT", "FILE", "a|b", "SIZE", ...
std::string type_text(const Knob& knob);
/// "1 to 1000000", "below 1", the choices; "" where anything goes.
std::string range_text(const Knob& knob);

/// "4GiB" to bytes and back, exactly.
std::optional<uint64_t> parse_size(std::string_view text);
std::string size_text(uint64_t bytes);

/// Reads a recipe file over `recipe`; all faults in one Error.
void apply_file(Recipe& recipe, std::string_view text, const std::string& origin);
/// A warning for each given setting that changes nothing in this run; the recipe's paths are
/// filled.
std::vector<std::string> settings_without_effect(const Recipe& recipe);

}  // namespace moue
