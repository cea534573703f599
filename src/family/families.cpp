// The table of families, generated from the names of the files in converters/.
#include "family/families.h"

#include "core/text.h"
#include "moue/error.h"

#include <algorithm>
#include <map>
#include <optional>
#include <stdexcept>

#define MOUE_FAMILY(name) Family name();
namespace moue::converters {
#include "families.inc"
}  // namespace moue::converters
#undef MOUE_FAMILY

namespace moue {

namespace {

Family named(Family family, std::string_view name) {
  family.name = name;
  return family;
}

std::vector<Family> table() {
#define MOUE_FAMILY(name) named(converters::name(), #name),
  std::vector<Family> result = {
#include "families.inc"
  };
#undef MOUE_FAMILY
  check_families(result);
  return result;
}

// What the config calls its architecture; of a MoUE, that of its source.
std::vector<std::string> architectures_of(const Config& config) {
  return config.strings(config.has("moue") ? "moue.base_architectures" : "architectures");
}

}  // namespace

void check_families(const std::vector<Family>& families) {
  std::map<std::string_view, std::string_view> owner;
  for (const Family& family : families) {
    if (!family.spec || family.tensors.empty() || family.forms.empty() ||
        family.architectures.empty() || family.example.empty()) {
      throw std::logic_error(fmt::format("converters/{}.cpp lacks a part", family.name));
    }
    for (std::string_view architecture : family.architectures) {
      const auto [other, is_new] = owner.emplace(architecture, family.name);
      if (is_new) continue;
      throw std::logic_error(
          fmt::format("{} and {} both claim {}", other->second, family.name, architecture));
    }
  }
}

const std::vector<Family>& families() {
  static const std::vector<Family> result = table();
  return result;
}

const Family& family_of(const Config& config) { return family_in(families(), config); }

const Family& family_in(const std::vector<Family>& families, const Config& config) {
  const std::vector<std::string> seen = architectures_of(config);
  std::vector<std::string> known;
  for (const Family& family : families) {
    for (std::string_view architecture : family.architectures) {
      if (std::find(seen.begin(), seen.end(), architecture) != seen.end()) return family;
      known.emplace_back(architecture);
    }
  }
  const auto near = seen.empty() ? std::nullopt : nearest(seen[0], known);
  fail("family", "{} answers to {}, which no file in converters/ claims; known: {}{}",
       config.origin(), seen.empty() ? "no architecture" : in_quotes(join(seen)), join(known),
       near ? fmt::format("; did you mean {}?", *near) : "");
}

}  // namespace moue
