// What moue_kernel_bench runs: one case per kernel, with its shape and the bytes it must move.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/element.h"

namespace moue::bench {

/// Legend: T tokens, D width, F expert width, S slots, N home slots, K chosen, V vocabulary.
struct Shapes {
  int64_t tokens, width, expert_width, slots, home_slots, chosen, vocabulary, heads, head_width;
  int64_t parameters;
};

/// Past every cache, and short enough for one thread.
Shapes cpu_shapes();
/// The size of a Qwen3-30B-A3B micro-batch: several times an L2 cache.
Shapes cuda_shapes();
Shapes quick_shapes();

struct Case {
  std::string name, shape;
  double bytes = 0;
  std::function<void()> run;  ///< owns the memory it works on
  bool float32_only = false;
};

using Make = Case (*)(kernels::Where, kernels::Element, const Shapes&);

/// Reads and writes memory once: the ceiling.
Case copy_case(kernels::Where where, const Shapes& shapes);
std::vector<Make> kernel_cases();
std::vector<Make> routing_cases();  ///< those of router, permutation and trajectory

}  // namespace moue::bench
