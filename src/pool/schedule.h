// How far every slot is open at a training step (section 7 of the method).
#pragma once

#include "moue/pool.h"

#include <cstdint>
#include <string_view>

namespace moue {

enum class Schedule : uint8_t {
  Distance,  ///< nearest donors first, each opening gradually
  Psr,       ///< a growing number of randomly drawn slots, redrawn each step
  Logit,     ///< all alike, m = phi^2
};
std::string_view to_string(Schedule);
Schedule schedule_of(std::string_view name);  ///< throws Error listing the schedules

/// Opening starts at step t_s and ends at t_e; where they are equal everything opens at once.
Visibility visibility_at(const Pool& pool, Schedule kind, int64_t step, int64_t t_s, int64_t t_e,
                         uint64_t seed);

/// psr: how many of `foreign` slots are open, floor((t - t_s) foreign / (t_e - t_s)) in integers.
int64_t num_open(int64_t foreign, int64_t step, int64_t t_s, int64_t t_e);

}  // namespace moue
