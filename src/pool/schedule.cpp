// How far every slot is open at a training step.
#include "pool/schedule.h"

#include "core/philox.h"
#include "core/text.h"
#include "moue/error.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace moue {

namespace {

constexpr std::array<std::string_view, 4> kSchedules = {"distance", "psr", "step", "logit"};

double phase(int64_t step, int64_t t_s, int64_t t_e) {
  if (t_s == t_e) return step >= t_s ? 1 : 0;
  return std::clamp(static_cast<double>(step - t_s) / static_cast<double>(t_e - t_s), 0.0, 1.0);
}

int64_t depth(const Pool& pool, size_t layer, int32_t expert) {
  return std::max<int64_t>(1, std::abs(static_cast<int64_t>(layer) - pool.home[expert].layer));
}

void open_by_distance(const Pool& pool, double phi, Visibility& m) {
  int64_t deepest = 1;
  for (size_t layer = 0; layer < m.size(); ++layer) {
    for (int32_t p : pool.slots[layer]) deepest = std::max(deepest, depth(pool, layer, p));
  }
  for (size_t layer = 0; layer < m.size(); ++layer) {
    for (size_t slot = pool.experts_per_layer; slot < m[layer].size(); ++slot) {
      const int64_t d = depth(pool, layer, pool.slots[layer][slot]);
      m[layer][slot] =
          std::clamp(phi * static_cast<double>(deepest) + 1 - static_cast<double>(d), 0.0, 1.0);
    }
  }
}

// Philox with key = seed and counter = (step, layer, slot): the smallest first words open, ties by
// slot.
void open_by_draw(std::vector<double>& m, size_t home, size_t layer, int64_t step, int64_t count,
                  uint64_t seed) {
  std::vector<std::pair<uint32_t, size_t>> draws;
  for (size_t slot = home; slot < m.size(); ++slot) {
    const PhiloxBlock counter = {static_cast<uint32_t>(step), static_cast<uint32_t>(layer),
                                 static_cast<uint32_t>(slot), 0};
    draws.emplace_back(philox(seed, counter)[0], slot);
  }
  std::sort(draws.begin(), draws.end());
  for (int64_t i = 0; i < count; ++i) m[draws[i].second] = 1;
}

}  // namespace

std::string_view to_string(Schedule schedule) { return kSchedules[static_cast<size_t>(schedule)]; }

Schedule schedule_of(std::string_view name) {
  for (size_t i = 0; i < kSchedules.size(); ++i) {
    if (kSchedules[i] == name) return static_cast<Schedule>(i);
  }
  fail("train", "open.schedule is {}, wanted one of: {}", in_quotes(name),
       fmt::join(kSchedules, ", "));
}

int64_t num_open(int64_t foreign, int64_t step, int64_t t_s, int64_t t_e) {
  if (step >= t_e) return foreign;
  if (step <= t_s) return 0;
  return (step - t_s) * foreign / (t_e - t_s);
}

int64_t num_open_by_thirds(int64_t foreign, int64_t step, int64_t t_s, int64_t t_e) {
  if (step >= t_e) return foreign;
  if (step < t_s) return 0;
  return (1 + 2 * (step - t_s) / (t_e - t_s)) * foreign / 3;
}

Visibility visibility_at(const Pool& pool, Schedule kind, int64_t step, int64_t t_s, int64_t t_e,
                         uint64_t seed) {
  Visibility m = closed_visibility(pool);
  const double phi = phase(step, t_s, t_e);
  if (kind == Schedule::Distance) {
    if (phi > 0) open_by_distance(pool, phi, m);
    return m;
  }
  for (size_t layer = 0; layer < m.size(); ++layer) {
    const int64_t foreign = pool.num_foreign(layer);
    if (kind == Schedule::Psr) {
      open_by_draw(m[layer], pool.experts_per_layer, layer, step, num_open(foreign, step, t_s, t_e),
                   seed);
    } else if (kind == Schedule::Step) {
      open_by_draw(m[layer], pool.experts_per_layer, layer, step,
                   num_open_by_thirds(foreign, step, t_s, t_e), seed);
    } else {
      std::fill(m[layer].begin() + pool.experts_per_layer, m[layer].end(), phi * phi);
    }
  }
  return m;
}

}  // namespace moue
