// Turns: which of several sources a row is read from, as a pure function of its number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace moue {

/// Sources take turns as evenly as their weights allow, each at least once in a round of 10,000
/// rows; a source's own rows come in order. One source: every row is its.
class Turns {
 public:
  static constexpr size_t kRound = 10000;
  static constexpr size_t kMostSources = 1000;

  /// Weights above 0, of at most kMostSources.
  explicit Turns(const std::vector<double>& weights);

  struct Turn {
    size_t source = 0;
    uint64_t number = 0;  ///< of that source's rows
  };
  Turn at(uint64_t row) const;
  /// Of all rows.
  double share(size_t source) const;

 private:
  struct Entry {
    uint32_t source = 0;
    uint32_t rank = 0;  ///< among its source's turns of the round
  };
  std::vector<uint64_t> quota_;  ///< turns of each source in a round
  std::vector<Entry> round_;
};

}  // namespace moue
