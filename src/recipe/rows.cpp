// The lists of tables of a recipe: [[train.data]] and [[train.groups]].
#include <algorithm>

#include "recipe/knob.h"

namespace moue {
namespace {

const RowList kLists[] = {
    {"train.data", "tokens", [](Recipe& r) { r.train.data.clear(); },
     [](Recipe& r) { r.data = {}; },
     [](Recipe& r) {
       r.train.data.push_back(r.data);
       return !r.data.tokens.empty();
     },
     [](const Recipe& r) { return r.train.data.size(); },
     [](const Recipe& from, size_t row, Recipe& to) { to.data = from.train.data[row]; }},
    {"train.groups", "pattern", [](Recipe& r) { r.train.groups.clear(); },
     [](Recipe& r) { r.group = {}; },
     [](Recipe& r) {
       r.train.groups.push_back(r.group);
       return !r.group.pattern.empty();
     },
     [](const Recipe& r) { return r.train.groups.size(); },
     [](const Recipe& from, size_t row, Recipe& to) { to.group = from.train.groups[row]; }},
};

}  // namespace

const RowList* find_rows(std::string_view table) {
  const auto* const found = std::find_if(std::begin(kLists), std::end(kLists),
                                         [&](const RowList& list) { return list.table == table; });
  return found == std::end(kLists) ? nullptr : found;
}

}  // namespace moue
