// Products of float32 matrices on one thread of a CPU with AVX-512.
#pragma once

#include <cstdint>

namespace moue::kernels {

/// A matrix in rows; or, transposed, one whose columns lie in rows. stride: elements from one to
/// the next.
struct Operand {
  const float* data;
  int64_t stride;
  bool transposed;
};

/// out [m, n], rows out_stride apart, = a [m, k] b [k, n], or is increased by it. An element's bits
/// depend on its row of a, its column of b and `add` alone, not on how many others there are: rows
/// may be shared out between threads and batches. Blocked as in Goto and van de Geijn 2008
/// ("Anatomy of high-performance matrix multiplication").
struct Product {
  Operand a, b;
  float* out;
  int64_t out_stride;
  bool add;
  int64_t m, n, k;
};

/// Whether this CPU can: elsewhere a library's product is the faster one.
bool has_product();

/// Runs on the calling thread. out may not overlap a or b.
void product(const Product& p);

constexpr int64_t kProductRows = 12;  ///< rows are best shared out in multiples of it

}  // namespace moue::kernels
