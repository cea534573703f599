// The staggered rotational topology: named cases, and the slot lists its parameters make.
#include "plan/topology.h"

#include "core/text.h"
#include "moue/error.h"
#include "moue/plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moue {

namespace {

constexpr int64_t kFar = int64_t{1} << 31;  // keeps start and window positions far from overflow
constexpr int64_t kMostExperts = int64_t{1} << 24;

int64_t positions(const Topology& t) { return t.ring > 0 ? t.ring : t.layers * t.experts; }

// Experts of the ring that a layer would have for itself: what named topologies are made of.
int64_t share_of_layer(const Topology& t) {
  return t.ring > 0 ? (t.ring + t.layers - 1) / t.layers : t.experts;
}

std::vector<std::string> parameter_faults(const Topology& t) {
  std::vector<std::string> faults;
  const auto within = [&](const char* name, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high)
      faults.push_back(fmt::format("{} is {}, wanted {} to {}", name, value, low, high));
  };
  within("layers", t.layers, 1, 65536);
  within("experts", t.experts, 1, 65536);
  within("group", t.group, 1, kFar);
  within("shift", t.shift, -kFar, kFar);
  within("window", t.window, 1, kFar);
  within("stride", t.stride, 1, kFar);
  within("origin", t.origin, -kFar, kFar);
  if (!faults.empty()) return faults;
  within("ring", t.ring, 0, kMostExperts);
  within("layers times experts", t.layers * t.experts, 1, kMostExperts);
  const int64_t ring = positions(t), distinct = ring / std::gcd(t.stride, ring);
  if (t.window > distinct) {
    faults.push_back(fmt::format(
        "a window of {} with stride {} shows an expert twice on a ring of {}, wanted a window of "
        "at most {}",
        t.window, t.stride, ring, distinct));
  }
  const int64_t most = t.ring > 0 ? kMaxSlots - t.experts : kMaxSlots;
  if (t.window > most) {
    faults.push_back(fmt::format(
        "a window of {} gives a layer more slots than the kernels hold, wanted at most {}",
        t.window, most));
  }
  if (t.boundary == Boundary::Clamp && t.stride != 1) {
    faults.push_back(
        fmt::format("stride is {}, wanted 1 with boundary clamp; choose boundary ring", t.stride));
  }
  return faults;
}

// The window of a layer, in window order.
std::vector<int32_t> window_of(const Topology& t, int64_t layer) {
  const int64_t ring = positions(t);
  int64_t start = t.origin + t.shift * (layer / t.group);
  if (t.boundary == Boundary::Clamp) start = std::clamp<int64_t>(start, 0, ring - t.window);
  std::vector<int32_t> result(t.window);
  for (int64_t j = 0; j < t.window; ++j) {
    const int64_t at = (start + t.stride * j) % ring;
    result[j] = static_cast<int32_t>(at < 0 ? at + ring : at);
  }
  return result;
}

// own(l) ++ V_l: the ring of new experts lies behind the source's, and misses nothing.
Slots slots_of_new(const Topology& t) {
  Slots result;
  const auto source = static_cast<int32_t>(t.layers * t.experts);
  for (int64_t layer = 0; layer < t.layers; ++layer) {
    std::vector<int32_t>& slots = result.emplace_back(t.experts);
    std::iota(slots.begin(), slots.end(), static_cast<int32_t>(layer * t.experts));
    for (const int32_t position : window_of(t, layer)) slots.push_back(source + position);
  }
  return result;
}

std::string missed_text(const Topology& t, int64_t layer, const std::vector<int32_t>& window,
                        const std::vector<int32_t>& missed) {
  return fmt::format(
      "layer {} (window {} to {}) misses its own {}", layer, window.front(), window.back(),
      missed.size() == static_cast<size_t>(t.experts)
          ? fmt::format("experts {} to {}", missed.front(), missed.back())
          : fmt::format("{} of {} experts, first {}", missed.size(), t.experts, missed.front()));
}

}  // namespace

std::vector<std::string> topology_names() {
  return {"vanilla", "aligned", "sliding", "half_staggered", "one_pool", "similarity"};
}

Topology unlimited_topology(const std::string& name, int64_t layers, int64_t experts, int64_t group,
                            int64_t ring) {
  Topology t{.name = name, .layers = layers, .experts = experts};
  t.ring = ring;
  if (ring > 0) t.boundary = Boundary::Ring;
  const bool in_blocks = name == "aligned" || name == "half_staggered";
  const int64_t share = share_of_layer(t);
  t.group = group > 0 ? group : in_blocks ? 2 : 1;
  t.shift = t.group * share;
  if (name == "vanilla" || name == "aligned") {
    t.window = name == "aligned" ? t.shift : share;
  } else if (name == "sliding") {
    t.window = t.shift + 2 * share;
    t.origin = -share;
  } else if (name == "similarity") {
    t.shift = 0;
    t.window = 2 * experts;
    t.reach = kDefaultReach;
  } else if (name == "half_staggered") {
    t.window = 2 * t.shift;
    t.origin = -((t.shift + 1) / 2);
  } else if (name == "one_pool") {
    t.shift = 0;
    t.window = positions(t);
  } else {
    const std::vector<std::string> known = topology_names();
    const auto near = nearest(name, known);
    fail("plan", "topology is {}, wanted one of: {}{}", in_quotes(name), join(known),
         near ? fmt::format("; did you mean {}?", *near) : "");
  }
  return t;
}

Topology named_topology(const std::string& name, int64_t layers, int64_t experts, int64_t group,
                        int64_t ring) {
  Topology t = unlimited_topology(name, layers, experts, group, ring);
  t.window = std::min(t.window, positions(t));
  return t;
}

Slots make_slots(const Topology& t) {
  const std::vector<std::string> faults = parameter_faults(t);
  if (!faults.empty()) fail("plan", "topology {}: {}", t.name, join(faults, "; "));
  if (t.reach > 0) {
    fail("plan", "topology {} has no slots of its own; they come from scores of likeness", t.name);
  }
  if (t.ring > 0) return slots_of_new(t);
  Slots result;
  std::vector<std::string> misses;
  std::vector<char> is_seen(t.layers * t.experts);
  for (int64_t layer = 0; layer < t.layers; ++layer) {
    const std::vector<int32_t> window = window_of(t, layer);
    for (int32_t p : window) is_seen[p] = 1;
    const auto own = static_cast<int32_t>(layer * t.experts),
               end = static_cast<int32_t>(own + t.experts);
    std::vector<int32_t> slots, missed;
    for (int32_t p = own; p < end; ++p) (is_seen[p] ? slots : missed).push_back(p);
    for (int32_t p : window) {
      is_seen[p] = 0;
      if (p < own || p >= end) slots.push_back(p);
    }
    if (!missed.empty()) misses.push_back(missed_text(t, layer, window, missed));
    result.push_back(std::move(slots));
  }
  if (misses.empty()) return result;
  fail("plan",
       "topology {} (group {}, shift {}, window {}, stride {}, origin {}, {}): {}; widen the "
       "window or move it",
       t.name, t.group, t.shift, t.window, t.stride, t.origin, to_string(t.boundary),
       join_some(misses));
}

double path_bits(const Slots& slots, int64_t experts_per_token) {
  const auto k = static_cast<double>(experts_per_token);
  double bits = 0;
  for (const std::vector<int32_t>& layer : slots) {
    const auto n = static_cast<double>(layer.size());
    bits += std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1);
  }
  return bits / std::log(2.0);
}

}  // namespace moue
