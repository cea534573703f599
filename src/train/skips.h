// Steps that are left out: loss or gradient is not finite, or stands out from the steps before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace moue {

/// The last values of a run that were accepted, oldest first.
class Window {
 public:
  static constexpr size_t kSize = 50;
  static constexpr size_t kLeast = 20;  ///< values it takes to judge another

  /// Values that are not finite never enter.
  void add(double value);
  /// Larger than `factor` times the median of the window; never while that holds too little.
  bool stands_out(double value, double factor) const;
  double mean() const;  ///< NaN while empty
  void clear() { values.clear(); }

  std::vector<double> values;
};

struct Skips {
  int64_t total = 0;
  int64_t in_a_row = 0;
  int64_t spikes = 0;  ///< of the total: what was finite and stood out

  void count(bool skipped, bool spike);
};

}  // namespace moue
