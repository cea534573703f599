// The counting sort beside std::stable_sort; gathers beside sums over a list of pairs.
#include "support/kernel_test.h"
//
#include <numeric>

#include "kernels/permute.h"

using namespace moue;
using namespace moue::test;

namespace {

struct Case {
  int64_t tokens, chosen, slots, width;
  bool together = false;  ///< all tokens choose the same slots
  int64_t rows() const { return tokens * chosen; }
};

const std::vector<Case> kCases{
    {1, 1, 1, 1},      {1, 8, 8, 24},   {5, 2, 1000, 40},       {257, 2, 5, 127},
    {300, 8, 64, 129}, {1000, 1, 3, 1}, {600, 1, 40, 24, true}, {130, 8, 1000, 2056, true}};

std::vector<int32_t> chosen_slots(const Case& c) {
  std::vector<int32_t> chosen;
  std::vector<int32_t> slots(c.slots);
  std::iota(slots.begin(), slots.end(), 0);
  for (int64_t t = 0; t < c.tokens; ++t) {
    const auto seed = static_cast<uint32_t>(c.together ? 0 : t);
    for (int64_t k = 0; k < c.chosen; ++k) {  // the first K of a shuffle
      const PhiloxBlock draw = philox(11, {seed, static_cast<uint32_t>(k), 0, 0});
      std::swap(slots[k], slots[k + draw[0] % (c.slots - k)]);
    }
    if (c.together && t > 0)
      chosen.insert(chosen.end(), chosen.begin(), chosen.begin() + c.chosen);
    else
      chosen.insert(chosen.end(), slots.begin(), slots.begin() + c.chosen);
  }
  return chosen;
}

struct Order {
  std::vector<int32_t> chosen, token_of_row, slot_of_row, row_of;
  std::vector<int64_t> count;
};

Order reference(const Case& c) {
  Order o{chosen_slots(c), {}, {}, std::vector<int32_t>(c.rows()), std::vector<int64_t>(c.slots)};
  std::vector<int32_t> entries(c.rows());
  std::iota(entries.begin(), entries.end(), 0);
  std::stable_sort(entries.begin(), entries.end(),
                   [&](int32_t a, int32_t b) { return o.chosen[a] < o.chosen[b]; });
  for (size_t row = 0; row < entries.size(); ++row) {
    o.token_of_row.push_back(static_cast<int32_t>(entries[row] / c.chosen));
    o.slot_of_row.push_back(o.chosen[entries[row]]);
    o.row_of[entries[row]] = static_cast<int32_t>(row);
    ++o.count[o.chosen[entries[row]]];
  }
  return o;
}

void check_order(const Case& c, Where where) {
  const Order wanted = reference(c);
  Array<int32_t> chosen(where, wanted.chosen), token(where, c.rows()), slot(where, c.rows());
  Array<int32_t> row(where, c.rows()),
      partial(where, kernels::permute_partials(c.rows()) * c.slots);
  Array<int64_t> count(where, wanted.count);
  kernels::permute({chosen.data(), count.data(), token.data(), slot.data(), row.data(),
                    partial.data(), c.tokens, c.chosen, c.slots},
                   where);
  CHECK(token.values() == wanted.token_of_row);
  CHECK(slot.values() == wanted.slot_of_row);
  CHECK(row.values() == wanted.row_of);
  partial.values();

  const Values by_token = random_values(c.rows(), 4);
  Array<float> weight = floats(where, by_token), by_row(where, c.rows()), back(where, c.rows());
  kernels::to_rows(weight.data(), row.data(), by_row.data(), c.rows(), where);
  kernels::from_rows(by_row.data(), row.data(), back.data(), c.rows(), where);
  Values gathered(c.rows());
  for (int64_t i = 0; i < c.rows(); ++i) gathered[wanted.row_of[i]] = by_token[i];
  CHECK(same_bits(doubles(by_row.values()), gathered));
  CHECK(same_bits(doubles(back.values()), by_token));
}

// A gain, or a bias, per slot; every third slot has none.
class Gains {
 public:
  Gains(const Case& c, Element element, Where where, uint64_t seed = 21)
      : width_(c.width),
        values_(random_values(c.slots * c.width, seed, 1, element)),
        memory_(where, element, values_),
        table_(where, pointers(c, element)) {}
  const void* const* table() { return table_.data(); }
  static bool has(int64_t slot) { return slot % 3 != 2; }
  double operator()(int64_t slot, int64_t column, double none = 1.0) const {
    return has(slot) ? values_[slot * width_ + column] : none;
  }

 private:
  std::vector<const void*> pointers(const Case& c, Element element) {
    std::vector<const void*> all;
    const int64_t bytes = c.width * (element == Element::Float32 ? 4 : 2);
    for (int64_t s = 0; s < c.slots; ++s)
      all.push_back(has(s) ? static_cast<const char*>(memory_.data()) + s * bytes : nullptr);
    return all;
  }
  int64_t width_;
  Values values_;
  Numbers memory_;
  Array<const void*> table_;
};

// How rows are moved: `wide` where x and out are float32 whatever the rows are.
struct Manner {
  Element element = Element::Float32;
  bool gained = true, biased = false, wide = false;
  Element side() const { return wide ? Element::Float32 : element; }
};

struct Moved {
  Values rows, out;
  std::vector<float> dgain, dbias;
};

Moved run(const Case& c, const Manner& m, const Values& x_in, const Values& rows_in, Where where) {
  const Order o = reference(c);
  Gains gains(c, m.element, where), biases(c, m.element, where, 22);
  Numbers x(where, m.side(), x_in), rows(where, m.element, rows_in);
  Numbers gathered(where, m.element, rows_in.size()), out(where, m.side(), x_in.size());
  Array<int32_t> token(where, o.token_of_row), slot(where, o.slot_of_row), row(where, o.row_of);
  Array<int64_t> count(where, o.count);
  Array<float> dgain(where, c.slots * c.width), dbias(where, c.slots * c.width);
  const void* const* gain = m.gained ? gains.table() : nullptr;
  const void* const* bias = m.biased ? biases.table() : nullptr;
  kernels::gather_rows({m.element, m.side(), x.data(), gain, bias, token.data(), slot.data(),
                        gathered.data(), c.rows(), c.width},
                       where);
  kernels::combine_rows({m.element, m.side(), rows.data(), gain, row.data(), slot.data(),
                         out.data(), c.tokens, c.chosen, c.width},
                        where);
  kernels::gain_backward({m.element, m.side(), rows.data(), x.data(), token.data(), count.data(),
                          dgain.data(), m.biased ? dbias.data() : nullptr, c.slots, c.width},
                         where);
  return {gathered.values(), out.values(), dgain.values(), dbias.values()};
}

// Every (row, column) visited as a pair, whatever the order.
Moved moved(const Case& c, const Manner& m, const Values& x, const Values& rows) {
  const Order o = reference(c);
  const Gains gains(c, m.element, kCpu), biases(c, m.element, kCpu, 22);
  Values gathered(rows.size()), out(x.size(), 0.0), dgain(c.slots * c.width, 0.0), dbias = dgain;
  for (int64_t r = 0; r < c.rows(); ++r) {
    const int64_t token = o.token_of_row[r], slot = o.slot_of_row[r];
    for (int64_t i = 0; i < c.width; ++i) {
      const double gain = m.gained ? gains(slot, i) : 1.0, bias = m.biased ? biases(slot, i, 0) : 0;
      gathered[r * c.width + i] = gain * x[token * c.width + i] + bias;
      out[token * c.width + i] += gain * rows[r * c.width + i];
      dgain[slot * c.width + i] += rows[r * c.width + i] * x[token * c.width + i];
      dbias[slot * c.width + i] += rows[r * c.width + i];
    }
  }
  return {gathered, out, {dgain.begin(), dgain.end()}, {dbias.begin(), dbias.end()}};
}

void check_moves(const Case& c, const Manner& m, Where where) {
  CAPTURE(c.tokens, c.chosen, c.slots, c.width, m.element == Element::Float32, m.gained, m.biased,
          m.wide);
  const Values x = random_values(c.tokens * c.width, 1, 1, m.side());
  const Values rows = random_values(c.rows() * c.width, 2, 1, m.element);
  const Moved got = run(c, m, x, rows, where);
  const Moved wanted = moved(c, m, x, rows);
  CHECK(max_error(got.rows, wanted.rows) <= tolerance::of(m.element));
  CHECK(max_error(got.out, wanted.out) <= tolerance::of(m.side()));
  CHECK(max_error(doubles(got.dgain), doubles(wanted.dgain)) <= tolerance::kFloat32Sum);
  if (m.biased)
    CHECK(max_error(doubles(got.dbias), doubles(wanted.dbias)) <= tolerance::kFloat32Sum);
  else
    CHECK(Array<float>::is_poison(got.dbias[0]));
  if (!m.gained && !m.biased && !m.wide) CHECK(same_bits(got.rows, wanted.rows));  // moves bytes
}

void check_all(Where where) {
  for (const Case& c : kCases) {
    CAPTURE(c.tokens, c.chosen, c.slots, c.width);
    check_order(c, where);
    for (const Element element : kElements) {
      for (const bool gained : {true, false}) check_moves(c, {element, gained}, where);
      for (const bool wide : {true, false}) check_moves(c, {element, true, true, wide}, where);
    }
  }
}

void swapped_inputs_show(Where where) {
  const Case c{257, 2, 5, 127};
  for (const Element element : kElements) {
    const double visible = tolerance::kVisible * tolerance::of(element);
    const Values x = random_values(c.tokens * c.width, 1, 1, element);
    const Values rows = random_values(c.rows() * c.width, 2, 1, element);
    const Moved wanted = moved(c, {element, true, true}, x, rows);
    const Moved ungained = run(c, {element, false, true}, x, rows, where);
    CHECK(max_error(ungained.rows, wanted.rows) > visible);
    CHECK(max_error(ungained.out, wanted.out) > visible);
    CHECK(max_error(run(c, {element}, x, rows, where).rows, wanted.rows) > visible);  // no bias
    Values shifted = x;
    std::rotate(shifted.begin(), shifted.begin() + c.width, shifted.end());
    const Moved other_token = run(c, {element, true, true}, shifted, rows, where);
    CHECK(max_error(other_token.rows, wanted.rows) > visible);
    CHECK(max_error(doubles(other_token.dgain), doubles(wanted.dgain)) > visible);
  }
}

void no_tokens(Where where) {
  const Case c{0, 2, 5, 24};
  const Moved got = run(c, {}, {}, {}, where);
  CHECK(std::all_of(got.dgain.begin(), got.dgain.end(), [](float x) { return x == 0; }));
}

}  // namespace

TEST_CASE("permute is a stable sort, gathers move rows", "[peer][kernels]") {
  check_all(kCpu);
  no_tokens(kCpu);
}

TEST_CASE("permute shows swapped inputs", "[peer][kernels]") { swapped_inputs_show(kCpu); }

TEST_CASE("permute does not depend on how rows are spread", "[peer][kernels]") {
  const Case c{500, 8, 64, 40};
  for (const Element element : kElements) {
    const Values x = random_values(c.tokens * c.width, 1, 1, element);
    const Values rows = random_values(c.rows() * c.width, 2, 1, element);
    const Moved whole = run(c, {element, true, true}, x, rows, kCpu);
    const OddPieces odd;
    const Moved pieces = run(c, {element, true, true}, x, rows, kCpu);
    CHECK(same_bits(whole.rows, pieces.rows));
    CHECK(same_bits(whole.out, pieces.out));
    CHECK(same_bits(whole.dgain, pieces.dgain));
    CHECK(same_bits(whole.dbias, pieces.dbias));
    check_order(c, kCpu);
  }
}

TEST_CASE("permute on CUDA", "[peer][kernels][gpu]") {
  if (!have_gpu()) return;
  check_all(kGpu);
  no_tokens(kGpu);
  swapped_inputs_show(kGpu);
}
