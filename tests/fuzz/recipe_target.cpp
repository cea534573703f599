// Fuzzes recipe files: what is read is written down and read as the same.
#include "fuzz/fuzz.h"
#include "moue/recipe.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moue;
  return fuzz::attempt([&] {
    const Recipe recipe = parse_recipe(fuzz::text_of(data, size), "recipe.toml");
    const std::string text = resolved(recipe, "");
    fuzz::require(resolved(parse_recipe(text, "resolved"), "") == text,
                  "a resolved recipe resolves to itself");
  });
}
