// One call of the router kernels on given inputs, for the router's tests.
#pragma once

#include "support/kernel_test.h"
//
#include "kernels/router.h"

namespace moue::test {

using kernels::RouterRule;

inline constexpr double kClosedSlot = -std::numeric_limits<double>::infinity();

/// T tokens, N home, S slots, K chosen. Empty vectors stand for null pointers where allowed.
struct RouterInputs {
  Element element = Element::Float32;
  RouterRule rule = RouterRule::SoftmaxChosen;
  int64_t tokens = 1, home_slots = 1, slots = 1, chosen = 1;
  Values home, foreign, beta, bonus, log_visibility, pool_bias, scale;
  Values dgate, dweight, balance;
  double balance_scale = 0.5;
  int64_t foreign_slots() const { return slots - home_slots; }
};

struct RouterOutputs {
  std::vector<float> z, gate, weight, dz, dbeta, dscale;
  Values dhome, dforeign, probability;
  std::vector<int32_t> chosen;
  std::vector<int64_t> count;
};

/// Random inputs; every fourth foreign slot is closed, the next half open.
inline RouterInputs random_router(int64_t tokens, int64_t home, int64_t slots, int64_t chosen,
                                  Element element, RouterRule rule, uint64_t seed = 1) {
  const int64_t foreign = slots - home;
  RouterInputs in{element, rule, tokens, home, slots, chosen, {}, {},
                  {},      {},   {},     {},   {},    {},     {}, {}};
  in.home = random_values(tokens * home, seed, 3, element);
  in.foreign = random_values(tokens * foreign, seed + 1, 3, element);
  in.beta = random_values(foreign, seed + 2);
  in.bonus = random_values(tokens * slots, seed + 3);
  in.pool_bias = random_values(slots, seed + 4);
  in.scale = random_values(foreign, seed + 5);
  in.dgate = random_values(tokens * chosen, seed + 6);
  in.dweight = random_values(tokens * chosen, seed + 7);
  in.balance = random_values(slots, seed + 8);
  in.log_visibility.assign(slots, 0.0);
  for (int64_t s = home; s < slots; ++s) {
    if ((s - home) % 4 == 0) {
      in.log_visibility[s] = kClosedSlot;
      in.balance[s] = 0;
    } else if ((s - home) % 4 == 1) {
      in.log_visibility[s] = static_cast<float>(std::log(0.3));
    }
  }
  return in;
}

RouterOutputs run_router(const RouterInputs& in, Where where);

}  // namespace moue::test
