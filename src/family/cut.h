// A model's first, last or middle layers as a model of their own.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "moue/family.h"

namespace moue {

/// config.json of layers [first, last): their number, lists by layer, which are dense. Layers that
/// predict further tokens are gone. Throws Error where none of them is routed, or where the
/// config's words cannot say what a layer was.
Config cut_config(const Config& config, const Family& family, int64_t first, int64_t last);

/// The name of a tensor of a layer when that layer has another number.
std::string moved_name(std::string_view name, const Claim& claim, int64_t layer);

}  // namespace moue
