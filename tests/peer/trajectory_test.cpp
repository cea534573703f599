// The trajectory state's input beside dense matrix products.
#include "support/kernel_test.h"
//
#include <numeric>

#include "kernels/trajectory.h"

using namespace moue;
using namespace moue::test;

namespace {

struct Case {
  int64_t tokens, chosen, slots, dim;
  bool together = false;  ///< all tokens choose the first slots
  int64_t entries() const { return tokens * chosen; }
};

const std::vector<Case> kCases{{1, 1, 1, 1},    {5, 2, 7, 24},          {130, 8, 64, 33},
                               {300, 1, 3, 64}, {257, 2, 50, 40, true}, {9, 8, 1000, 129}};

struct Inputs {
  std::vector<int32_t> chosen;
  Values gate, key, dread;
};

Inputs inputs(const Case& c) {
  Inputs in{{},
            random_values(c.entries(), 1),
            random_values(c.slots * c.dim, 2),
            random_values(c.tokens * c.dim, 3)};
  for (int64_t i = 0; i < c.entries(); ++i) {  // K neighbours of a wandering slot: distinct
    const int64_t first = c.together ? 0 : i / c.chosen * 13;
    in.chosen.push_back(static_cast<int32_t>((first + i % c.chosen) % c.slots));
  }
  return in;
}

struct Outputs {
  Values read, dgate, dkey;
};

Outputs run(const Case& c, const Inputs& in, Where where) {
  std::vector<int32_t> entries(c.entries()), token_of_row;
  std::vector<int64_t> count(c.slots);
  std::iota(entries.begin(), entries.end(), 0);
  std::stable_sort(entries.begin(), entries.end(),
                   [&](int32_t a, int32_t b) { return in.chosen[a] < in.chosen[b]; });
  Values by_row;
  for (const int32_t entry : entries) {
    token_of_row.push_back(static_cast<int32_t>(entry / c.chosen));
    by_row.push_back(in.gate[entry]);
    ++count[in.chosen[entry]];
  }
  Array<int32_t> chosen(where, in.chosen), tokens(where, token_of_row);
  Array<int64_t> counts(where, count);
  Array<float> gate = floats(where, in.gate), gate_rows = floats(where, by_row);
  Array<float> key = floats(where, in.key), dread = floats(where, in.dread);
  Array<float> read(where, in.dread.size()), dgate(where, in.gate.size());
  Array<float> dkey(where, in.key.size());
  kernels::trajectory_read(
      {gate.data(), chosen.data(), key.data(), read.data(), c.tokens, c.chosen, c.dim}, where);
  kernels::trajectory_read_backward(
      {dread.data(), gate_rows.data(), chosen.data(), key.data(), tokens.data(), counts.data(),
       dgate.data(), dkey.data(), c.tokens, c.chosen, c.slots, c.dim},
      where);
  return {doubles(read.values()), doubles(dgate.values()), doubles(dkey.values())};
}

// a [rows, inner] times b [inner, columns], or with a transposed.
Values product(const Values& a, const Values& b, int64_t rows, int64_t inner, int64_t columns,
               bool transposed = false) {
  Values out(rows * columns, 0.0);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < inner; ++j) {
      const double x = transposed ? a[j * rows + i] : a[i * inner + j];
      for (int64_t k = 0; k < columns && x != 0; ++k)
        out[i * columns + k] += x * b[j * columns + k];
    }
  }
  return out;
}

// With the gates as a dense matrix G [T, S]: read = G key, dG = dread key^T, dkey = G^T dread.
Outputs reference(const Case& c, const Inputs& in) {
  Values dense(c.tokens * c.slots, 0.0), key_t(in.key.size());
  for (int64_t i = 0; i < c.entries(); ++i)
    dense[i / c.chosen * c.slots + in.chosen[i]] += in.gate[i];
  for (int64_t s = 0; s < c.slots; ++s) {
    for (int64_t d = 0; d < c.dim; ++d) key_t[d * c.slots + s] = in.key[s * c.dim + d];
  }
  const Values dense_gradient = product(in.dread, key_t, c.tokens, c.dim, c.slots);
  Values dgate;
  for (int64_t i = 0; i < c.entries(); ++i)
    dgate.push_back(dense_gradient[i / c.chosen * c.slots + in.chosen[i]]);
  return {product(dense, in.key, c.tokens, c.slots, c.dim), dgate,
          product(dense, in.dread, c.slots, c.tokens, c.dim, true)};
}

void check_all(Where where) {
  for (const Case& c : kCases) {
    CAPTURE(c.tokens, c.chosen, c.slots, c.dim);
    const Inputs in = inputs(c);
    const Outputs got = run(c, in, where), wanted = reference(c, in);
    CHECK(max_error(got.read, wanted.read) <= tolerance::kFloat32);
    CHECK(max_error(got.dgate, wanted.dgate) <= tolerance::kFloat32Sum);
    CHECK(max_error(got.dkey, wanted.dkey) <= tolerance::kFloat32Sum);
  }
}

void swapped_inputs_show(Where where) {
  const Case c{130, 8, 64, 33};
  const Inputs in = inputs(c);
  Inputs swapped = in;
  for (int64_t i = 0; i < c.entries(); i += 2) {
    std::swap(swapped.chosen[i], swapped.chosen[i + 1]);
    std::swap(swapped.key[i], swapped.key[i + 1]);
  }
  const Outputs got = run(c, swapped, where), wanted = reference(c, in);
  const double visible = tolerance::kVisible * tolerance::kFloat32Sum;
  CHECK(max_error(got.read, wanted.read) > visible);
  CHECK(max_error(got.dgate, wanted.dgate) > visible);
  CHECK(max_error(got.dkey, wanted.dkey) > visible);
}

}  // namespace

TEST_CASE("trajectory_read is a product with the gates", "[peer][kernels]") { check_all(kCpu); }

TEST_CASE("trajectory_read shows swapped slots", "[peer][kernels]") { swapped_inputs_show(kCpu); }

TEST_CASE("trajectory_read does not depend on how tokens are spread", "[peer][kernels]") {
  const Case c{999, 2, 50, 40};
  const Inputs in = inputs(c);
  const Outputs whole = run(c, in, kCpu);
  const OddPieces odd;
  const Outputs pieces = run(c, in, kCpu);
  CHECK(same_bits(whole.read, pieces.read));
  CHECK(same_bits(whole.dgate, pieces.dgate));
  CHECK(same_bits(whole.dkey, pieces.dkey));
}

TEST_CASE("trajectory_read on CUDA", "[peer][kernels][gpu]") {
  if (!have_gpu()) return;
  check_all(kGpu);
  swapped_inputs_show(kGpu);
}
