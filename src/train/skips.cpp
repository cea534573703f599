// Steps that are left out.
#include "train/skips.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace moue {

void Window::add(double value) {
  if (!std::isfinite(value)) return;
  values.push_back(value);
  if (values.size() > kSize) values.erase(values.begin());
}

bool Window::stands_out(double value, double factor) const {
  if (factor <= 0 || values.size() < kLeast) return false;
  std::vector<double> sorted = values;
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return value > factor * *middle;
}

double Window::mean() const {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

void Skips::count(bool skipped, bool spike) {
  total += skipped;
  spikes += skipped && spike;
  in_a_row = skipped ? in_a_row + 1 : 0;
}

}  // namespace moue
