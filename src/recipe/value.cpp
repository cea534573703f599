// Values of knobs: from words and TOML into the recipe, checked, and back out as text.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "recipe/knob.h"

namespace moue {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

template <class Number>
std::optional<Number> parse_number(std::string_view word) {
  Number number{};
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return number;
}

std::optional<double> number_in(const Setting& setting) {
  if (const auto* whole = std::get_if<int64_t>(&setting)) return static_cast<double>(*whole);
  if (const auto* real = std::get_if<double>(&setting)) return *real;
  return std::nullopt;
}

/// Shortest text that reads back as the same double, and as a float of TOML.
std::string real_text(double number) {
  std::string text = fmt::format("{}", number);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

std::string list_text(const std::vector<double>& list) {
  std::vector<std::string> words;
  for (const double number : list) words.push_back(real_text(number));
  return fmt::format("[{}]", fmt::join(words, ", "));
}

/// A basic string of TOML.
std::string toml_string(std::string_view text) {
  std::string out = "\"";
  for (const char letter : text) {
    const auto code = static_cast<unsigned char>(letter);
    if (letter == '"' || letter == '\\') {
      out += '\\';
      out += letter;
    } else if (code < 0x20 || code == 0x7F) {
      out += fmt::format("\\u{:04X}", code);
    } else {
      out += letter;
    }
  }
  return out + '"';
}

std::string list_text(const std::vector<std::string>& list) {
  std::vector<std::string> words;
  for (const std::string& word : list) words.push_back(toml_string(word));
  return fmt::format("[{}]", fmt::join(words, ", "));
}

std::string shown(const Setting& setting) {
  return std::visit(Overloaded{[](bool truth) { return std::string(truth ? "true" : "false"); },
                               [](int64_t whole) { return fmt::format("{}", whole); },
                               [](double real) { return real_text(real); },
                               [](const std::string& text) { return toml_string(text); },
                               [](const std::vector<double>& list) { return list_text(list); },
                               [](const std::vector<std::string>& list) { return list_text(list); },
                               [](const Foreign& foreign) { return foreign.shown; }},
                    setting);
}

std::string wanted(const Knob& knob) {
  Recipe recipe;
  const auto integer = [&](auto*) { return fmt::format("an integer, {}", range_text(knob)); };
  return std::visit(
      Overloaded{
          [](bool*) { return std::string("true or false"); },
          [&](int64_t* at) { return integer(at); },
          [&](std::optional<int64_t>* at) { return integer(at); },
          [&](uint64_t*) { return fmt::format("a size such as \"4GiB\", {}", range_text(knob)); },
          [&](double*) { return fmt::format("a number, {}", range_text(knob)); },
          [](std::vector<std::string>*) { return std::string("a list of strings"); },
          [&](std::string*) {
            if (!knob.free.empty()) return knob.free;
            return (knob.several ? "one or more, joined by commas, of " : "one of ") +
                   range_text(knob);
          },
          [](std::filesystem::path*) { return std::string("a path"); },
          [&](std::vector<double>*) {
            return fmt::format("{} numbers, {}", knob.length, range_text(knob));
          }},
      knob.at(recipe));
}

bool in_range(const Knob& knob, double number) {
  // Written so that NaN is outside.
  return number >= knob.least && (knob.below_most ? number < knob.most : number <= knob.most);
}

/// One overload per type of Field; each returns whether the setting was taken.
struct Assign {
  const Knob& knob;
  const Setting& setting;

  bool is_chosen(std::string_view text) const {
    if (!knob.free.empty()) return text.find('\0') == std::string_view::npos;
    const size_t comma = knob.several ? text.find(',') : std::string_view::npos;
    if (std::count(knob.choices.begin(), knob.choices.end(), text.substr(0, comma)) == 0)
      return false;
    return comma == std::string_view::npos || is_chosen(text.substr(comma + 1));
  }
  bool operator()(bool* to) const {
    const auto* truth = std::get_if<bool>(&setting);
    return truth != nullptr && (*to = *truth, true);
  }
  bool operator()(int64_t* to) const {
    const auto* whole = std::get_if<int64_t>(&setting);
    return whole != nullptr && in_range(knob, static_cast<double>(*whole)) && (*to = *whole, true);
  }
  bool operator()(std::optional<int64_t>* to) const {
    int64_t whole = 0;
    return (*this)(&whole) && (*to = whole, true);
  }
  bool operator()(uint64_t* to) const {
    std::optional<uint64_t> bytes;
    if (const auto* text = std::get_if<std::string>(&setting)) bytes = parse_size(*text);
    if (const auto* whole = std::get_if<int64_t>(&setting); whole != nullptr && *whole >= 0) {
      bytes = static_cast<uint64_t>(*whole);
    }
    return bytes && in_range(knob, static_cast<double>(*bytes)) && (*to = *bytes, true);
  }
  bool operator()(double* to) const {
    const auto number = number_in(setting);
    return number && in_range(knob, *number) && (*to = *number, true);
  }
  bool operator()(std::string* to) const {
    const auto* text = std::get_if<std::string>(&setting);
    return text != nullptr && is_chosen(*text) && (*to = *text, true);
  }
  bool operator()(std::filesystem::path* to) const {
    const auto* text = std::get_if<std::string>(&setting);
    return text != nullptr && text->find('\0') == std::string::npos && (*to = *text, true);
  }
  bool operator()(std::vector<double>* to) const {
    const auto* list = std::get_if<std::vector<double>>(&setting);
    return list != nullptr && list->size() == knob.length &&
           std::all_of(list->begin(), list->end(),
                       [&](double number) { return in_range(knob, number); }) &&
           (*to = *list, true);
  }
  bool operator()(std::vector<std::string>* to) const {
    const auto* none = std::get_if<std::vector<double>>(&setting);
    if (none != nullptr && none->empty()) return to->clear(), true;
    const auto* list = std::get_if<std::vector<std::string>>(&setting);
    return list != nullptr && (*to = *list, true);
  }
};

}  // namespace

std::string assign(const Knob& knob, Recipe& recipe, const Setting& setting) {
  if (!std::visit(Assign{knob, setting}, knob.at(recipe))) {
    return fmt::format("is {}, wanted {}", shown(setting), wanted(knob));
  }
  recipe.given.insert(knob.key);
  return {};
}

Setting setting_of(const Knob& knob, const std::vector<std::string>& words) {
  const std::string joined = fmt::format("{}", fmt::join(words, " "));
  const auto number = [&]() -> Setting {
    if (const auto whole = parse_number<int64_t>(joined)) return *whole;
    if (const auto real = parse_number<double>(joined)) return *real;
    return joined;
  };
  const auto list = [&]() -> Setting {
    std::vector<double> values;
    for (const auto& word : words) {
      const auto value = parse_number<double>(word);
      if (!value) return joined;
      values.push_back(*value);
    }
    return values;
  };
  const auto truth = [&]() -> Setting {
    if (joined == "true" || joined == "false") return joined == "true";
    return joined;
  };
  const Recipe recipe;
  return std::visit(
      Overloaded{[&](bool*) { return truth(); }, [&](std::vector<double>*) { return list(); },
                 [&](std::string*) { return Setting(joined); },
                 [&](std::vector<std::string>*) { return Setting(words); },
                 [&](std::filesystem::path*) { return Setting(joined); },
                 [&](auto*) { return number(); }},
      knob.at(recipe));
}

std::string toml_text(const Knob& knob, const Recipe& recipe) {
  const auto text = [&](const std::string& value) {
    return value.empty() && !knob.unset.empty() ? std::string() : toml_string(value);
  };
  return std::visit(
      Overloaded{[](const bool* value) { return std::string(*value ? "true" : "false"); },
                 [](const int64_t* value) { return fmt::format("{}", *value); },
                 [](const uint64_t* value) { return toml_string(size_text(*value)); },
                 [](const double* value) { return real_text(*value); },
                 [&](const std::string* value) { return text(*value); },
                 [&](const std::filesystem::path* value) { return text(value->string()); },
                 [](const std::optional<int64_t>* value) {
                   return *value ? fmt::format("{}", **value) : std::string();
                 },
                 [](const std::vector<double>* value) { return list_text(*value); },
                 [](const std::vector<std::string>* value) {
                   return value->empty() ? std::string() : list_text(*value);
                 }},
      knob.at(recipe));
}

std::string type_text(const Knob& knob) {
  const Recipe recipe;
  return std::visit(
      Overloaded{[](bool*) { return ""; }, [](int64_t*) { return "INT"; },
                 [](std::optional<int64_t>*) { return "INT"; }, [](uint64_t*) { return "SIZE"; },
                 [](double*) { return "FLOAT"; },
                 [&](std::string*) { return knob.free.empty() ? "NAME" : knob.free.c_str(); },
                 [](std::filesystem::path*) { return "PATH"; },
                 [](std::vector<double>*) { return "FLOAT FLOAT"; },
                 [](std::vector<std::string>*) { return "TEXT"; }},
      knob.at(recipe));
}

std::string range_text(const Knob& knob) {
  if (!knob.choices.empty()) {
    std::vector<std::string> names;
    for (const auto& name : knob.choices) names.push_back(name.empty() ? "\"\"" : name);
    return fmt::format("{}", fmt::join(names, ", "));
  }
  if (!knob.free.empty()) return knob.free;
  const Recipe recipe;
  const Field field = knob.at(recipe);
  if (std::holds_alternative<bool*>(field) ||
      std::holds_alternative<std::filesystem::path*>(field) ||
      std::holds_alternative<std::vector<std::string>*>(field)) {
    return {};
  }
  if (std::holds_alternative<uint64_t*>(field)) {
    return fmt::format("at least {}", size_text(static_cast<uint64_t>(knob.least)));
  }
  if (knob.below_most) return fmt::format("at least {} and below {}", knob.least, knob.most);
  return knob.most >= 1e9 ? fmt::format("at least {}", knob.least)
                          : fmt::format("{} to {}", knob.least, knob.most);
}

}  // namespace moue
