// Changes JSON as JSON: numbers, names, lists and objects, and now and then its bytes.
#pragma once

#include <random>
#include <string>

namespace moue::fuzz {

using Random = std::minstd_rand;

size_t below(Random& random, size_t limit);

/// One to four changes; what comes out is mostly JSON.
std::string mutate_json(std::string text, Random& random);

}  // namespace moue::fuzz
