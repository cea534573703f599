// Rows of one document each.
#include "tokens/documents.h"

#include <algorithm>
#include <cassert>

namespace moue {

DocumentRows::DocumentRows(const std::vector<uint64_t>& bounds, int64_t length) : length_(length) {
  const auto step = static_cast<uint64_t>(length);
  for (size_t i = 1; i < bounds.size(); ++i) {
    if (bounds[i] - bounds[i - 1] < 2) continue;
    const uint64_t targets = bounds[i] - bounds[i - 1] - 1;
    begins_.push_back(bounds[i - 1]);
    counts_.push_back(targets);
    ends_.push_back(size() + (targets + step - 1) / step);
    targets_ += targets;
  }
}

DocumentRows::Row DocumentRows::row(uint64_t number) const {
  assert(number < size());
  const auto at = std::upper_bound(ends_.begin(), ends_.end(), number) - ends_.begin();
  const uint64_t first = at == 0 ? 0 : ends_[at - 1];
  const uint64_t begin = (number - first) * static_cast<uint64_t>(length_);
  const uint64_t left = counts_[at] - begin;
  return {begins_[at] + begin, static_cast<int64_t>(std::min<uint64_t>(left, length_))};
}

}  // namespace moue
