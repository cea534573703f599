// Fuzzes config.json: parsed, printed, and asked for its spec by every family.
#include "fuzz/json_target.h"
#include "moue/family.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moue;
  return fuzz::attempt([&] {
    const Config config = Config::parse(fuzz::text_of(data, size), "config.json");
    fuzz::require(Config::parse(config.text(), "again").text() == config.text(),
                  "a config prints as it is parsed");
    fuzz::attempt([&] { family_of(config); });
    for (const Family& family : families()) {
      fuzz::attempt([&] { geometry_of(family.spec(config)); });
    }
  });
}
