// What a router must give: sorts, and the families' formulas in double, written from their own code
// without a thought for speed.
#pragma once

#include "support/kernel_router.h"

namespace moue::test {

struct RouterWanted {
  Values gate, weight, probability, dz, dhome, dforeign, dbeta, dscale;
  std::vector<int32_t> chosen;
  std::vector<int64_t> count;
};

/// Logits of all tokens in double; -inf where closed.
Values wanted_logits(const RouterInputs& in);

/// Everything behind the logits, which are the kernel's own: choices are exact.
RouterWanted wanted_router(const RouterInputs& in, const std::vector<float>& z);

}  // namespace moue::test
