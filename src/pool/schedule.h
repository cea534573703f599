// How far every slot is open at a training step (section 7 of the method).
#pragma once

#include "moue/pool.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace moue {

enum class Schedule : uint8_t {
  Distance,  ///< nearest donors first, each opening gradually
  Psr,       ///< a growing number of randomly drawn slots, redrawn each step
  Step,      ///< as Psr, but a third of the slots at once, then two thirds, then all
  Logit,     ///< all alike, m = phi^2
};
std::string_view to_string(Schedule);
Schedule schedule_of(std::string_view name);  ///< throws Error listing the schedules

/// Opening starts at step t_s and ends at t_e; where they are equal everything opens at once.
Visibility visibility_at(const Pool& pool, Schedule kind, int64_t step, int64_t t_s, int64_t t_e,
                         uint64_t seed);

/// What relocking keeps of each layer: the fewest foreign slots that with its home slots hold
/// `cover` of the layer's choices, f (each row sums to 1); ties: lowest slot. Home slots stay: 1.
std::vector<std::vector<double>> kept_slots(const Pool& pool,
                                            const std::vector<std::vector<double>>& f,
                                            double cover);
/// Visibility while the others close: 1 where a slot is kept, else (1 + cos(pi phi)) / 2.
Visibility relocked(const std::vector<std::vector<double>>& kept, double phi);

/// psr: how many of `foreign` slots are open, floor((t - t_s) foreign / (t_e - t_s)) in integers.
int64_t num_open(int64_t foreign, int64_t step, int64_t t_s, int64_t t_e);
/// step: the same for phi' = (1 + floor(2 phi)) / 3, 0 before t_s.
int64_t num_open_by_thirds(int64_t foreign, int64_t step, int64_t t_s, int64_t t_e);

}  // namespace moue
