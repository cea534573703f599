// One call of the router kernels on given inputs, for the router's tests.
#pragma once

#include "support/kernel_test.h"
//
#include <string>

#include "kernels/router.h"

namespace moue::test {

using kernels::RouterRule;

inline constexpr double kClosedSlot = -std::numeric_limits<double>::infinity();

/// T tokens, N home, S slots, K chosen. Empty vectors stand for null pointers where allowed.
struct RouterInputs {
  Element element = Element::Float32;
  RouterRule rule;
  int64_t tokens = 1, home_slots = 1, slots = 1, chosen = 1;
  Values home, foreign, beta, bonus, log_visibility, correction, pool_bias, scale;
  Values dgate, dweight, balance;
  double balance_scale = 0.5;
  int64_t foreign_slots() const { return slots - home_slots; }
  bool is_open(int64_t slot) const { return log_visibility[slot] != kClosedSlot; }
};

struct RouterOutputs {
  std::vector<float> z, gate, weight, dz, dbeta, dscale;
  Values dhome, dforeign, probability;
  std::vector<int32_t> chosen;
  std::vector<int64_t> count;
};

/// A family's rule by name.
struct NamedRule {
  const char* name;
  RouterRule rule;
};
/// Every rule of the families, and the combinations none of them has yet. Groups stand for
/// home slots that four divides.
const std::vector<NamedRule>& router_rules();
RouterRule router_rule(const std::string& name);

/// Random inputs; every fourth foreign slot is closed, the next half open. Rules of sigmoids get a
/// correction; groups are left out where they do not fit.
RouterInputs random_router(int64_t tokens, int64_t home, int64_t slots, int64_t chosen,
                           Element element, const RouterRule& rule, uint64_t seed = 1);

RouterOutputs run_router(const RouterInputs& in, Where where);

}  // namespace moue::test
