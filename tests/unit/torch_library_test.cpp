// The way to libmoue_torch.so: a missing library or symbol says how to mend it.
#include "core/torch_library.h"

#include "moue/error.h"

#include <catch2/catch.hpp>

namespace moue {

TEST_CASE("a symbol that cannot be had says how to get it", "[torch_library]") {
  // Which of the two depends on whether the preset built the library.
  CHECK_THROWS_WITH(
      torch_symbol("no_such_symbol"),
      (Catch::StartsWith("[torch] this verb runs the model and needs ") &&
       Catch::Contains("/libmoue_torch.so, which is not there; build it: scripts/setup")) ||
          Catch::Equals("[torch] libmoue_torch.so has no 'no_such_symbol'; it is of another "
                        "build than libmoue.so, rebuild both"));
}

}  // namespace moue
