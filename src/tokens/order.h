// DataOrder: which tokens a row of a training step reads, as a pure function of (seed, step).
#pragma once

#include <cstdint>
#include <string_view>

namespace moue {

enum class Order : uint8_t { Shuffled, Sequential };
Order order_of(std::string_view name);  ///< throws Error listing the orders

/// A bijection of 0..size-1 for each (key, tweak): a Feistel network of Philox with cycle walking.
uint64_t permuted(uint64_t index, uint64_t size, uint64_t key, uint64_t tweak);

/// Rows are numbered step * batch + row and read full windows of the token file. `Shuffled`: each
/// epoch is a permutation of all windows of its own, drawn from (seed, epoch). `Sequential`: row n
/// reads window n; after the last full window comes the first again. There is no state: resuming at
/// a step needs the step alone.
struct DataOrder {
  Order order = Order::Shuffled;
  uint64_t seed = 0;
  int64_t windows = 0;  ///< TokenFile::num_windows(length), at least 1
  int64_t length = 0;
  int64_t batch = 0;
  uint64_t source = 0;  ///< of several, each with permutations of its own

  /// The window that row `number`, over all steps, reads.
  uint64_t window(uint64_t number) const;
  /// First token of the row's inputs; its targets start one later.
  uint64_t position(int64_t step, int64_t row) const;
  /// Passes over the file before `step`, with fraction.
  double epochs(int64_t step) const;
};

}  // namespace moue
