// How knobs are declared: the macro that names a place in Recipe, and lists that several share.
#pragma once

#include <string>
#include <vector>

#include "recipe/knob.h"

// The key is the place in Recipe, spelled the same.
#define MOUE_KNOB(place, help) \
  declare(#place, help, [](Recipe& recipe) -> Field { return &recipe.place; })

namespace moue {

inline Knob declare(const char* key, const char* help, Field (*field)(Recipe&)) {
  Knob knob;
  knob.key = key;
  knob.help = help;
  knob.field = field;
  return knob;
}

inline const std::vector<std::string> kDtypes = {"float32", "bfloat16"};
inline const std::vector<std::string> kDevices = {"cpu", "cuda"};
inline const std::vector<std::string> kTokenTypes = {"", "u16", "u32"};

/// The largest table has a file of its own.
std::vector<Knob> train_knobs();

}  // namespace moue
