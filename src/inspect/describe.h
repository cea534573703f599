// How a model computes, in words.
#pragma once

#include <string>

#include "moue/spec.h"

namespace moue {

/// Whether words carry a model's own numbers or tell only what is done.
enum class Numbers : uint8_t { Yes, No };

/// "sigmoid with a correction, top 8 from the best 4 of 8 groups, renormalised, times 2.5".
std::string router_text(const ModelSpec& spec, Numbers numbers);
/// "latent: 128 heads of 192, rank 512, queries of rank 1536"; "linear in 70 layers, ...".
std::string attention_text(const ModelSpec& spec, Numbers numbers);
/// "yarn times 40, on 64 of 192 channels".
std::string rope_text(const ModelSpec& spec, Numbers numbers);
/// "28 wide, gated"; "none".
std::string shared_text(const ModelSpec& spec);
/// One layer's attention in a word: "window 9", "full", "linear", "latent", "experts".
std::string layer_text(const AttentionSpec& attention, int64_t layer);

}  // namespace moue
