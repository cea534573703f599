// One call of the router kernels on given inputs; the families' rules.
#include "support/kernel_router.h"

namespace moue::test {
namespace {

const float* or_null(Array<float>& x, const Values& values) {
  return values.empty() ? nullptr : x.data();
}

using Score = RouterRule::Score;

RouterRule softmax(bool renormalise, int64_t groups = 1) {
  RouterRule rule;
  rule.renormalise = renormalise;
  rule.groups = groups;
  rule.kept_groups = (groups + 1) / 2;
  return rule;
}

RouterRule sigmoid(float eps, int64_t groups = 1) {
  RouterRule rule = softmax(true, groups);
  rule.score = Score::Sigmoid;
  rule.norm_eps = eps;
  rule.group_score = RouterRule::GroupScore::SumOfTwo;
  return rule;
}

RouterRule rounded(RouterRule rule, Score score, bool scores = true) {
  rule.score = score;
  rule.round_scores = scores;
  rule.round_gates = true;
  return rule;
}

RouterRule powered(RouterRule rule, float power, float eps = 0) {
  rule.norm_power = power;
  rule.norm_eps = eps;
  return rule;
}

RouterRule scaled(RouterRule rule, float scale) {
  rule.scale = scale;
  return rule;
}

RouterRule jittered(RouterRule rule, float jitter) {
  rule.jitter = jitter;
  return rule;
}

}  // namespace

// Jitter is larger than phimoe's, so that slots lie on both sides of its limit.
const std::vector<NamedRule>& router_rules() {
  static const RouterRule plain;
  static const std::vector<NamedRule> rules = {
      {"mixtral", plain},
      {"olmoe", rounded(softmax(false), Score::Softmax, false)},
      {"deepseek_v2", scaled(softmax(false, 4), 16)},
      {"deepseek_v3", scaled(sigmoid(1e-20f, 4), 2.5f)},
      {"minimax_m2", sigmoid(0)},
      {"phimoe", jittered(rounded(plain, Score::Sparse), 0.2f)},
      {"granitemoe", rounded(plain, Score::Chosen, false)},
      {"gpt_oss", rounded(plain, Score::Chosen)},
      {"dbrx", rounded(plain, Score::Softmax)},
      {"dbrx, norm 2", powered(rounded(plain, Score::Softmax), 2)},
      {"dbrx, not renormalised", rounded(softmax(false), Score::Softmax)},
      {"softmax, norm 3, eps", powered(plain, 3, 0.25f)},
      {"sigmoid, norm 2, eps", powered(sigmoid(0), 2, 0.25f)},
      {"sigmoid, not renormalised", rounded(softmax(false), Score::Sigmoid, false)},
  };
  return rules;
}

RouterRule router_rule(const std::string& name) {
  for (const NamedRule& rule : router_rules()) {
    if (rule.name == name) return rule.rule;
  }
  throw std::logic_error("no router rule " + name);
}

RouterInputs random_router(int64_t tokens, int64_t home, int64_t slots, int64_t chosen,
                           Element element, const RouterRule& rule, uint64_t seed) {
  const int64_t foreign = slots - home;
  RouterInputs in;
  in.element = element;
  in.rule = rule;
  in.tokens = tokens;
  in.home_slots = home;
  in.slots = slots;
  in.chosen = chosen;
  if (home % rule.groups != 0 || chosen * rule.groups > home * rule.kept_groups)
    in.rule.groups = in.rule.kept_groups = 1;
  in.home = random_values(tokens * home, seed, 3, element);
  in.foreign = random_values(tokens * foreign, seed + 1, 3, element);
  in.beta = random_values(foreign, seed + 2);
  in.bonus = random_values(tokens * slots, seed + 3);
  in.pool_bias = random_values(slots, seed + 4, rule.score == Score::Sigmoid ? 0.2 : 1);
  in.scale = random_values(foreign, seed + 5);
  in.dgate = random_values(tokens * chosen, seed + 6);
  in.dweight = random_values(tokens * chosen, seed + 7);
  in.balance = random_values(slots, seed + 8);
  if (rule.score == Score::Sigmoid) in.correction = random_values(slots, seed + 9, 0.3);
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

RouterOutputs run_router(const RouterInputs& in, Where where) {
  const auto T = static_cast<size_t>(in.tokens), S = static_cast<size_t>(in.slots);
  const auto K = static_cast<size_t>(in.chosen), F = static_cast<size_t>(in.foreign_slots());
  const auto parts = static_cast<size_t>(kernels::router_partials(in.tokens));
  Numbers home(where, in.element, in.home), foreign(where, in.element, in.foreign);
  Numbers dhome(where, in.element, in.home.size()), dforeign(where, in.element, in.foreign.size());
  Array<float> beta = floats(where, in.beta), bonus = floats(where, in.bonus);
  Array<float> visibility = floats(where, in.log_visibility), bias = floats(where, in.pool_bias);
  Array<float> correction = floats(where, in.correction);
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
                           .correction = or_null(correction, in.correction),
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
