// Fuzzes plan.json.
#include "fuzz/json_target.h"
#include "moue/plan.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moue;
  return fuzz::attempt([&] {
    const Plan plan = read_plan(fuzz::as_file(fuzz::text_of(data, size)));
    picture_of(plan);
  });
}
