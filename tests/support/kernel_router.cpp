// One call of the router kernels on given inputs.
#include "support/kernel_router.h"

namespace moue::test {
namespace {

const float* or_null(Array<float>& x, const Values& values) {
  return values.empty() ? nullptr : x.data();
}

}  // namespace

RouterOutputs run_router(const RouterInputs& in, Where where) {
  const auto T = static_cast<size_t>(in.tokens), S = static_cast<size_t>(in.slots);
  const auto K = static_cast<size_t>(in.chosen), F = static_cast<size_t>(in.foreign_slots());
  const auto parts = static_cast<size_t>(kernels::router_partials(in.tokens));
  Numbers home(where, in.element, in.home), foreign(where, in.element, in.foreign);
  Numbers dhome(where, in.element, in.home.size()), dforeign(where, in.element, in.foreign.size());
  Array<float> beta = floats(where, in.beta), bonus = floats(where, in.bonus);
  Array<float> visibility = floats(where, in.log_visibility), bias = floats(where, in.pool_bias);
  Array<float> scale = floats(where, in.scale), balance = floats(where, in.balance);
  Array<float> dgate = floats(where, in.dgate), dweight = floats(where, in.dweight);
  Array<float> z(where, T * S), gate(where, T * K), weight(where, T * K), dz(where, T * S);
  Array<float> dbeta(where, F), dscale(where, F), partial(where, parts * 2 * F);
  Array<int32_t> chosen(where, T * K);
  Array<int64_t> count(where, S);
  Array<double> probability(where, S), sums(where, parts * S);
  kernels::router_forward({.element = in.element,
                           .rule = in.rule,
                           .home = home.data(),
                           .foreign = F ? foreign.data() : nullptr,
                           .beta = beta.data(),
                           .bonus = or_null(bonus, in.bonus),
                           .log_visibility = visibility.data(),
                           .pool_bias = bias.data(),
                           .scale = scale.data(),
                           .z = z.data(),
                           .chosen = chosen.data(),
                           .gate = gate.data(),
                           .weight = weight.data(),
                           .count = count.data(),
                           .probability = probability.data(),
                           .partial = sums.data(),
                           .tokens = in.tokens,
                           .home_slots = in.home_slots,
                           .slots = in.slots,
                           .chosen_per_token = in.chosen},
                          where);
  kernels::router_backward({.element = in.element,
                            .rule = in.rule,
                            .z = z.data(),
                            .chosen = chosen.data(),
                            .gate = gate.data(),
                            .scale = scale.data(),
                            .dgate = or_null(dgate, in.dgate),
                            .dweight = or_null(dweight, in.dweight),
                            .balance = or_null(balance, in.balance),
                            .balance_scale = static_cast<float>(in.balance_scale),
                            .dz = dz.data(),
                            .dhome = dhome.data(),
                            .dforeign = F ? dforeign.data() : nullptr,
                            .dbeta = dbeta.data(),
                            .dscale = dscale.data(),
                            .partial = partial.data(),
                            .tokens = in.tokens,
                            .home_slots = in.home_slots,
                            .slots = in.slots,
                            .chosen_per_token = in.chosen},
                           where);
  partial.values();
  sums.values();
  return {z.values(),           gate.values(),   weight.values(), dz.values(),
          dbeta.values(),       dscale.values(), dhome.values(),  dforeign.values(),
          probability.values(), chosen.values(), count.values()};
}

}  // namespace moue::test
