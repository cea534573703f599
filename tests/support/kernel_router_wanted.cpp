// What a router must give: sorts, and the families' formulas in double.
#include "support/kernel_router_wanted.h"

#include <numeric>

namespace moue::test {
namespace {

using Score = RouterRule::Score;
using Slots = std::vector<int32_t>;

Values softmax(const Values& z) {
  const double top = *std::max_element(z.begin(), z.end());
  Values p;
  for (const double v : z) p.push_back(std::exp(v - top));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& v : p) v /= sum;
  return p;
}

double sigmoid(double z) { return z == kClosedSlot ? 0 : 1 / (1 + std::exp(-z)); }

Values sigmoids(const Values& z) {
  Values s;
  for (const double v : z) s.push_back(sigmoid(v));
  return s;
}

// One token of the inputs.
class Token {
 public:
  Token(const RouterInputs& in, int64_t t, const float* z)
      : in_(in), t_(t), z_(z, z + in.slots), chosen_(choice()), near_(near_slots()) {}

  const Values& z() const { return z_; }
  const Slots& chosen() const { return chosen_; }

  /// The gates that logits z give to this token's choice; roundings only where asked for: they have
  /// no derivative.
  Values gates(const Values& z, bool round) const {
    const RouterRule& rule = in_.rule;
    const auto scores_rounded = [&](double x) {
      return round && rule.round_scores ? narrow(x) : x;
    };
    Values gate;
    if (rule.score == Score::Sparse) {
      for (const Slots& near : near_) gate.push_back(pass(z, near));
    } else if (rule.score == Score::Chosen) {
      gate = softmax(picked(z));
    } else {
      gate = picked(rule.score == Score::Softmax ? softmax(z) : sigmoids(z));
      for (double& g : gate) g = scores_rounded(g);
      if (rule.renormalise) {
        double sum = 0;
        for (const double g : gate) sum += std::pow(g, rule.norm_power);
        const double norm = scores_rounded(std::pow(sum, 1.0 / rule.norm_power));
        for (double& g : gate) g /= norm + rule.norm_eps;
      }
    }
    for (double& g : gate) g = round && rule.round_gates ? narrow(g) : g;
    return gate;
  }

  Values shares(const Values& z) const {
    if (in_.rule.score != Score::Sigmoid) return softmax(z);
    Values s = sigmoids(z);
    const double sum = std::accumulate(s.begin(), s.end(), 0.0);
    for (double& v : s) v /= sum;
    return s;
  }

  double weight_of_gate(int64_t k) const {
    const int64_t slot = chosen_[k];
    return in_.rule.scale * (slot < in_.home_slots ? 1.0 : in_.scale[slot - in_.home_slots]);
  }

  /// The scalar whose gradient backward is, the choice held fixed.
  double loss(const Values& z) const {
    const Values gate = gates(z, false);
    double sum = 0;
    for (int64_t k = 0; k < in_.chosen; ++k) {
      const int64_t i = t_ * in_.chosen + k;
      if (!in_.dgate.empty()) sum += in_.dgate[i] * gate[k];
      if (!in_.dweight.empty()) sum += in_.dweight[i] * gate[k] * weight_of_gate(k);
    }
    if (in_.balance.empty()) return sum;
    const Values share = shares(z);
    for (int64_t s = 0; s < in_.slots; ++s) sum += in_.balance_scale * in_.balance[s] * share[s];
    return sum;
  }

 private:
  double narrow(double x) const { return round_to(in_.element, x); }

  Values picked(const Values& x) const {
    Values result;
    for (const int32_t s : chosen_) result.push_back(x[s]);
    return result;
  }

  // Selection keys in float: sums of floats, so that ties are the kernel's.
  std::vector<float> keys() const {
    std::vector<float> key;
    for (int64_t s = 0; s < in_.slots; ++s) {
      float value = static_cast<float>(in_.rule.score == Score::Sigmoid ? sigmoid(z_[s]) : z_[s]);
      if (!in_.correction.empty()) value += static_cast<float>(in_.correction[s]);
      key.push_back(value + static_cast<float>(in_.pool_bias[s]));
    }
    return key;
  }

  std::vector<bool> candidates(const std::vector<float>& key) const {
    std::vector<bool> open;
    for (int64_t s = 0; s < in_.slots; ++s) open.push_back(in_.is_open(s));
    const int64_t groups = in_.rule.groups, size = in_.home_slots / groups;
    std::vector<float> score;
    for (int64_t g = 0; g < groups; ++g) {
      std::vector<float> own(key.begin() + g * size, key.begin() + (g + 1) * size);
      std::sort(own.begin(), own.end(), std::greater<>());
      const bool two = in_.rule.group_score == RouterRule::GroupScore::SumOfTwo && size > 1;
      score.push_back(two ? own[0] + own[1] : own[0]);
    }
    Slots order(groups);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return score[a] > score[b]; });
    for (int64_t i = in_.rule.kept_groups; i < groups; ++i)
      std::fill_n(open.begin() + order[i] * size, size, false);
    return open;
  }

  Slots choice() const {
    const std::vector<float> key = keys();
    const std::vector<bool> open = candidates(key);
    Slots order;
    for (int64_t s = 0; s < in_.slots; ++s) {
      if (open[s]) order.push_back(static_cast<int32_t>(s));
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return key[a] > key[b]; });
    order.resize(in_.chosen);
    return order;
  }

  // Per pass the choice first, then the other slots that are near it and not chosen before. The
  // comparison is in the precision of the scores: it decides as the kernel does.
  std::vector<Slots> near_slots() const {
    std::vector<Slots> result;
    const Element element = in_.rule.round_scores ? in_.element : Element::Float32;
    const float limit = round_to(element, 2.0f * in_.rule.jitter);
    for (size_t k = 0; k < chosen_.size(); ++k) {
      const float best = static_cast<float>(z_[chosen_[k]]);
      Slots& near = result.emplace_back(Slots{chosen_[k]});
      for (int32_t s = 0; s < in_.slots; ++s) {
        const float z = static_cast<float>(z_[s]);
        const float below = round_to(element, best - z);
        const float far = round_to(element, below / std::max(std::abs(z), best));
        const bool taken =
            std::find(chosen_.begin(), chosen_.begin() + k + 1, s) != chosen_.begin() + k + 1;
        if (in_.is_open(s) && !taken && !(far > limit)) near.push_back(s);
      }
    }
    return result;
  }

  static double pass(const Values& z, const Slots& near) {
    Values picked;
    for (const int32_t s : near) picked.push_back(z[s]);
    return softmax(picked)[0];
  }

  const RouterInputs& in_;
  int64_t t_;
  Values z_;
  Slots chosen_;
  std::vector<Slots> near_;
};

void add_token(const RouterInputs& in, int64_t t, const Token& token, RouterWanted& w) {
  const Values gate = token.gates(token.z(), true), share = token.shares(token.z());
  w.chosen.insert(w.chosen.end(), token.chosen().begin(), token.chosen().end());
  w.gate.insert(w.gate.end(), gate.begin(), gate.end());
  for (int64_t k = 0; k < in.chosen; ++k) {
    const int32_t slot = token.chosen()[k];
    w.weight.push_back(gate[k] * token.weight_of_gate(k));
    ++w.count[slot];
    if (slot >= in.home_slots && !in.dweight.empty())
      w.dscale[slot - in.home_slots] += in.dweight[t * in.chosen + k] * gate[k] * in.rule.scale;
  }
  for (int64_t s = 0; s < in.slots; ++s) w.probability[s] += share[s];
}

void add_gradient(const RouterInputs& in, const Token& token, RouterWanted& w) {
  const Values dz = gradient_of([&](const Values& x) { return token.loss(x); }, token.z());
  for (int64_t s = 0; s < in.slots; ++s) {
    const double d = in.is_open(s) ? dz[s] : 0;
    w.dz.push_back(d);
    (s < in.home_slots ? w.dhome : w.dforeign).push_back(d);
    if (s >= in.home_slots) w.dbeta[s - in.home_slots] += d;
  }
}

}  // namespace

Values wanted_logits(const RouterInputs& in) {
  Values logits;
  for (int64_t t = 0; t < in.tokens; ++t) {
    for (int64_t s = 0; s < in.slots; ++s) {
      const int64_t f = s - in.home_slots;
      double z = f < 0 ? in.home[t * in.home_slots + s]
                       : in.foreign[t * in.foreign_slots() + f] + in.beta[f] + in.log_visibility[s];
      if (!in.bonus.empty()) z += in.bonus[t * in.slots + s];
      logits.push_back(z);
    }
  }
  return logits;
}

RouterWanted wanted_router(const RouterInputs& in, const std::vector<float>& z) {
  RouterWanted w;
  w.count.assign(in.slots, 0);
  w.probability.assign(in.slots, 0.0);
  w.dbeta.assign(in.foreign_slots(), 0.0);
  w.dscale.assign(in.foreign_slots(), 0.0);
  for (int64_t t = 0; t < in.tokens; ++t) {
    const Token token(in, t, z.data() + t * in.slots);
    add_token(in, t, token, w);
    add_gradient(in, token, w);
  }
  return w;
}

}  // namespace moue::test
