// Products of float32 matrices beside sums in double: sizes that fill no tile, both ways of storing
// an operand, added or not.
#include "support/kernel_test.h"
//
#include "kernels/product.h"

using namespace moue;
using namespace moue::test;

namespace {

struct Case {
  int64_t m, n, k;
};

// Around a tile of 12 x 32, a panel of 16, a packed block of 192 and 384, and 144 rows, 512
// columns.
const std::vector<Case> kCases{{1, 1, 1},     {12, 32, 16},  {13, 33, 17},
                               {11, 15, 193}, {24, 31, 384}, {145, 16, 5},
                               {37, 513, 40}, {3, 7, 1000},  {300, 48, 191}};

struct Form {
  bool a_transposed, b_transposed, add;
};

const std::vector<Form> kForms{{false, false, false}, {false, true, false}, {true, false, false},
                               {true, true, false},   {false, false, true}, {true, false, true}};

constexpr int64_t kGap = 3;  // between the end of a row and the next

// [rows, columns] of numbers, stored with a gap, transposed or not.
struct Matrix {
  int64_t rows, columns;
  bool transposed;
  std::vector<float> floats;

  Matrix(int64_t r, int64_t c, bool t, uint64_t seed) : rows(r), columns(c), transposed(t) {
    for (double x : random_values((t ? c : r) * stride(), seed))
      floats.push_back(static_cast<float>(x));
  }
  int64_t stride() const { return (transposed ? rows : columns) + kGap; }
  double at(int64_t i, int64_t j) const {
    return floats[transposed ? j * stride() + i : i * stride() + j];
  }
  kernels::Operand operand() const { return {floats.data(), stride(), transposed}; }
};

// Rows [begin, end) of a b, or of what stood there and a b; the gap between rows holds NaN.
std::vector<float> run(const Matrix& a, const Matrix& b, bool add, int64_t begin, int64_t end) {
  const int64_t stride = b.columns + kGap;
  std::vector<float> out(a.rows * stride, std::numeric_limits<float>::quiet_NaN());
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t j = 0; add && j < b.columns; ++j) out[i * stride + j] = 0.25f;
  kernels::Operand left = a.operand();
  left.data += begin * (a.transposed ? 1 : a.stride());
  kernels::product({left, b.operand(), out.data() + begin * stride, stride, add, end - begin,
                    b.columns, a.columns});
  return out;
}

struct Seen {
  double error = 0;     // the largest
  int64_t outside = 0;  // numbers written where none belongs
};

Seen compare(const Matrix& a, const Matrix& b, bool add, const std::vector<float>& out) {
  Seen seen;
  const int64_t stride = b.columns + kGap;
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < b.columns; ++j) {
      double wanted = add ? 0.25 : 0;
      for (int64_t k = 0; k < a.columns; ++k) wanted += a.at(i, k) * b.at(k, j);
      const double error = std::abs(out[i * stride + j] - wanted);
      seen.error = error <= seen.error ? seen.error : error;  // NaN is the largest
    }
    for (int64_t j = b.columns; j < stride; ++j) seen.outside += !std::isnan(out[i * stride + j]);
  }
  return seen;
}

// k roundings of sums that grow as the root of k.
double bound(const Case& c) { return 8e-8 * static_cast<double>(c.k) + 2e-7; }

bool can() {
  if (kernels::has_product()) return true;
  did_not_run("no AVX-512");
  return false;
}

}  // namespace

TEST_CASE("products equal sums in double") {
  if (!can()) return;
  for (const Case& c : kCases) {
    for (const Form& form : kForms) {
      INFO(c.m << " x " << c.n << " x " << c.k << ", transposed " << form.a_transposed
               << form.b_transposed << ", add " << form.add);
      const Matrix a(c.m, c.k, form.a_transposed, 1), b(c.k, c.n, form.b_transposed, 2);
      const Seen seen = compare(a, b, form.add, run(a, b, form.add, 0, c.m));
      CHECK(seen.error <= bound(c));
      CHECK(seen.outside == 0);
      const Matrix other(c.k, c.n, form.b_transposed, 3);
      CHECK_FALSE(compare(a, other, form.add, run(a, b, form.add, 0, c.m)).error <= 100 * bound(c));
    }
  }
}

TEST_CASE("a product's rows do not depend on their neighbours") {
  if (!can()) return;
  for (const bool transposed : {false, true}) {
    const Matrix a(50, 400, transposed, 4), b(400, 70, !transposed, 5);
    const std::vector<float> whole = run(a, b, false, 0, 50);
    for (const auto& [begin, end] :
         std::vector<std::pair<int64_t, int64_t>>{{0, 1}, {5, 31}, {49, 50}}) {
      const std::vector<float> part = run(a, b, false, begin, end);
      for (int64_t i = begin; i < end; ++i)
        CHECK(std::memcmp(&whole[i * 73], &part[i * 73], 70 * sizeof(float)) == 0);
      CHECK(std::isnan(part[(begin == 0 ? end : begin - 1) * 73]));
    }
    const Matrix other(400, 70, !transposed, 6);
    CHECK(std::memcmp(&whole[0], &run(a, other, false, 0, 50)[0], 70 * sizeof(float)) != 0);
  }
}

TEST_CASE("a product over nothing is zero, or adds nothing") {
  if (!can()) return;
  const Matrix a(5, 0, false, 1), b(0, 9, false, 2);
  CHECK(compare(a, b, false, run(a, b, false, 0, 5)).error == 0);
  CHECK(compare(a, b, true, run(a, b, true, 0, 5)).error == 0);
}
