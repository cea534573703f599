// Recipe files: TOML matched with the knobs; every fault of the file is reported at once, with its
// line.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <algorithm>

#include "core/text.h"
#include "moue/error.h"
#include "recipe/knob.h"

namespace moue {
namespace {

using Faults = std::vector<std::string>;

Setting setting_of(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* whole = node.as_integer()) return whole->get();
  if (const auto* real = node.as_floating_point()) return real->get();
  if (const auto* truth = node.as_boolean()) return truth->get();
  if (const auto* array = node.as_array()) {
    std::vector<double> numbers;
    std::vector<std::string> words;
    for (const auto& element : *array) {
      if (const auto* word = element.as_string()) words.push_back(word->get());
    }
    if (!words.empty() && words.size() == array->size()) return words;
    for (const auto& element : *array) {
      const auto number = element.is_number() ? element.value<double>() : std::nullopt;
      if (!number) return Foreign{"a list of something else"};
      numbers.push_back(*number);
    }
    return numbers;
  }
  return Foreign{node.is_table() ? "a table" : "a date or time"};
}

/// The keys of one table, or the tables, to compare a misspelled name with.
std::vector<std::string> known_beside(std::string_view table) {
  std::vector<std::string> names;
  for (const Knob& knob : knobs()) {
    if (knob.table() == table) names.push_back(knob.key);
    if (!knob.table().starts_with(table)) continue;
    const std::string_view inner = knob.table();
    if (inner.size() > table.size())
      names.emplace_back(inner.substr(0, inner.find('.', table.size() + 1)));
  }
  return names;
}

bool is_table(std::string_view key) {
  for (const Knob& knob : knobs()) {
    const std::string_view table = knob.table();
    if (table == key || (table.starts_with(key) && table.substr(key.size()).starts_with('.')))
      return true;
  }
  return false;
}

/// The key of another table whose last part is alike: "plan.topology" for a "topology" at the top.
std::optional<std::string> elsewhere(std::string_view key) {
  std::vector<std::string> names;
  for (const Knob& knob : knobs()) names.push_back(knob.key.substr(knob.key.rfind('.') + 1));
  const auto alike = nearest(key.substr(key.rfind('.') + 1), names);
  if (!alike) return std::nullopt;
  return knobs()[std::find(names.begin(), names.end(), *alike) - names.begin()].key;
}

std::string unknown(const std::string& key, std::string_view table) {
  auto hint = nearest(key, known_beside(table));
  if (!hint) hint = elsewhere(key);
  if (!hint) return fmt::format("no key {}", in_quotes(key));
  return fmt::format("no {} {}, nearest is '{}'", is_table(*hint) ? "table" : "key", in_quotes(key),
                     *hint);
}

void apply_table(Recipe& recipe, const toml::table& table, const std::string& prefix,
                 Faults& faults);

// [[train.groups]] and its like: each row is read into its place in the recipe first.
void apply_rows(Recipe& recipe, const toml::node& node, const RowList& list, Faults& faults) {
  const std::string key(list.table);
  const auto line = node.source().begin.line;
  const auto* rows = node.as_array();
  if (rows == nullptr || !(rows->empty() || rows->is_homogeneous(toml::node_type::table))) {
    faults.push_back(
        fmt::format("line {}: '{}' is no list of tables, wanted [[{}]]", line, key, key));
    return;
  }
  list.clear(recipe);
  for (const auto& row : *rows) {
    list.begin(recipe);
    apply_table(recipe, *row.as_table(), key, faults);
    if (!list.add(recipe))
      faults.push_back(fmt::format("line {}: a row of '{}' has no {}", row.source().begin.line, key,
                                   list.required));
  }
  list.begin(recipe);
}

void apply_table(Recipe& recipe, const toml::table& table, const std::string& prefix,
                 Faults& faults) {
  for (const auto& [name, node] : table) {
    const std::string key =
        prefix.empty() ? std::string(name.str()) : fmt::format("{}.{}", prefix, name.str());
    const auto line = name.source().begin.line;
    if (const Knob* knob = find_knob(key)) {
      const std::string fault = assign(*knob, recipe, setting_of(node));
      if (!fault.empty()) faults.push_back(fmt::format("line {}: '{}' {}", line, key, fault));
    } else if (const RowList* list = find_rows(key)) {
      apply_rows(recipe, node, *list, faults);
    } else if (!is_table(key)) {
      faults.push_back(fmt::format("line {}: {}", line, unknown(key, prefix)));
    } else if (const auto* inner = node.as_table()) {
      apply_table(recipe, *inner, key, faults);
    } else {
      faults.push_back(
          fmt::format("line {}: '{}' is a value, wanted a table [{}]", line, key, key));
    }
  }
}

}  // namespace

void apply_file(Recipe& recipe, std::string_view text, const std::string& origin) {
  toml::table table;
  try {
    table = toml::parse(text, std::string_view(origin));
  } catch (const toml::parse_error& error) {
    fail("recipe", "{}: line {}, column {}: {}", origin, error.source().begin.line,
         error.source().begin.column, error.description());
  }
  Faults faults;
  apply_table(recipe, table, "", faults);
  if (faults.empty()) return;
  if (faults.size() == 1) fail("recipe", "{}: {}; all keys: docs/recipe.md", origin, faults[0]);
  fail("recipe", "{}: {} faults: {}; all keys: docs/recipe.md", origin, faults.size(),
       fmt::join(faults, "; "));
}

Recipe parse_recipe(std::string_view text, const std::string& origin) {
  Recipe recipe;
  apply_file(recipe, text, origin);
  return recipe;
}

}  // namespace moue
