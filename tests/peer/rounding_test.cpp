// AdamW on bfloat16 weights and moments: which bits round them, that the mean is kept, and that a
// part of their counter left out is noticed.
#include "support/kernel_test.h"
//
#include "kernels/adamw.h"

using namespace moue;
using namespace moue::test;
using kernels::Rounding;

namespace {

const Rounding kPlain{.key = 0x0123456789abcdef, .step = 7, .tensor = 3, .first = 5};

struct Settings {
  Element weights = Element::BFloat16, moments = Element::BFloat16;
  Rounding rounding = kPlain;
  double lr = 1e-2, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, decay = 0.1;
  int64_t row_size = 0;
};

struct State {
  Values master, m, v;
};

State start(int64_t size) {
  State s{random_values(size, 1, 1, Element::BFloat16),
          random_values(size, 2, 0.1, Element::BFloat16),
          random_values(size, 3, 0.1, Element::BFloat16)};
  for (double& x : s.v) x = std::abs(x);
  return s;
}

Values gradient(int64_t size) { return random_values(size, 4); }

// Elements [begin, end) of one step of a tensor.
State run(const State& from, const Values& grad, const Settings& s, Where where, int64_t begin = 0,
          int64_t end = -1) {
  if (end < 0) end = static_cast<int64_t>(grad.size());
  const auto part = [&](const Values& x) { return Values(x.begin() + begin, x.begin() + end); };
  Numbers master(where, s.weights, part(from.master));
  Numbers m(where, s.moments, part(from.m)), v(where, s.moments, part(from.v));
  Array<float> g = floats(where, part(grad));
  Array<float> decays = floats(where, Values(static_cast<size_t>(end - begin), s.decay));
  Rounding rounding = s.rounding;
  rounding.first += static_cast<uint64_t>(begin);
  kernels::adamw({.master = master.data(),
                  .grad = g.data(),
                  .m = m.data(),
                  .v = v.data(),
                  .size = end - begin,
                  .lr = s.lr,
                  .beta1 = s.beta1,
                  .beta2 = s.beta2,
                  .eps = s.eps,
                  .decay = s.decay,
                  .scale = 0.7,
                  .bias1 = 0.3,
                  .bias2 = 0.2,
                  .row_decay = s.row_size ? decays.data() : nullptr,
                  .row_size = s.row_size ? s.row_size : 1,
                  .weights = s.weights,
                  .moments = s.moments,
                  .rounding = rounding},
                 where);
  return {master.values(), m.values(), v.values()};
}

// The random half words of an element, by the authors' Philox: of the weight, m and v.
std::array<uint32_t, 3> halves(const Rounding& r, uint64_t index) {
  const uint64_t element = r.first + index, block = element / 2;
  const PhiloxBlock words = philox(
      r.key, {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), r.tensor, r.step});
  const uint32_t one = words[element % 2 * 2], other = words[element % 2 * 2 + 1];
  return {one & 0xffff, one >> 16, other & 0xffff};
}

// Which of its two neighbours a number becomes; `near` counts those that the last bits of float32
// arithmetic decide.
double rounded(double exact, uint32_t half, int64_t& near) {
  const uint32_t bits = std::bit_cast<uint32_t>(static_cast<float>(exact));
  const uint32_t sum = (bits & 0xffff) + half;
  near += sum + 64 >= 0x10000 && sum < 0x10000 + 64;
  return std::bit_cast<float>((bits + half) & 0xffff0000u);
}

int64_t differing(const Values& a, const Values& b) {
  int64_t count = 0;
  for (size_t i = 0; i < a.size(); ++i) count += a[i] != b[i];
  return count;
}

// One step in double, then rounded by the bits of the contract.
State reference(const State& from, const Values& grad, const Settings& s, int64_t& near) {
  State to = from;
  const auto store = [&](Element element, double x, uint32_t half) {
    return element == Element::Float32 ? static_cast<float>(x) : rounded(x, half, near);
  };
  for (size_t i = 0; i < grad.size(); ++i) {
    const auto half = halves(s.rounding, i);
    const double g = 0.7 * grad[i];
    const double m = s.beta1 * from.m[i] + (1 - s.beta1) * g;
    const double v = s.beta2 * from.v[i] + (1 - s.beta2) * g * g;
    const double w =
        from.master[i] * (1 - s.lr * s.decay) - s.lr * (m / 0.3) / (std::sqrt(v / 0.2) + s.eps);
    to.master[i] = store(s.weights, w, half[0]);
    to.m[i] = store(s.moments, m, half[1]);
    to.v[i] = store(s.moments, v, half[2]);
  }
  return to;
}

void check_bits(Where where) {
  for (const Element weights : kElements) {
    for (const Element moments : kElements) {
      for (const int64_t size : {1, 24, 127, 129, 1000, (1 << 14) + 5}) {
        CAPTURE(size, weights == Element::BFloat16, moments == Element::BFloat16);
        const Settings s{.weights = weights, .moments = moments};
        int64_t near = 0;
        const State from = start(size), got = run(from, gradient(size), s, where);
        const State wanted = reference(from, gradient(size), s, near);
        const auto agrees = [&](Element element, const Values& a, const Values& b) {
          if (element == Element::Float32) return max_error(a, b) <= tolerance::kFloat32;
          return differing(a, b) <= near && max_error(a, b) <= tolerance::kBFloat16Twice;
        };
        CHECK(agrees(weights, got.master, wanted.master));
        CHECK(agrees(moments, got.m, wanted.m));
        CHECK(agrees(moments, got.v, wanted.v));
        CHECK(near <= 3 + size / 100);
      }
    }
  }
}

// Every part of the counter decides: without it about half of what is rounded differs.
void left_out_parts_show(Where where) {
  const int64_t size = 1000;
  const State from = start(size), plain = run(from, gradient(size), {}, where);
  const auto changed = [&](const Rounding& rounding) {
    const State other = run(from, gradient(size), {.rounding = rounding}, where);
    for (const int64_t count : {differing(other.master, plain.master), differing(other.m, plain.m),
                                differing(other.v, plain.v)})
      CHECK(count > size / 5);
  };
  Rounding r = kPlain;
  r.key = 0;
  changed(r);
  r = kPlain;
  r.step = 0;
  changed(r);
  r = kPlain;
  r.tensor = 0;
  changed(r);
  r = kPlain;
  r.first += 1;
  changed(r);
  r = kPlain;
  r.first += uint64_t{1} << 34;  // the high word of the counter
  changed(r);
}

void check_rows(Where where) {
  for (const int64_t row_size : {33, 40}) {
    const int64_t size = 7 * row_size;
    const State from = start(size), whole = run(from, gradient(size), {}, where);
    const State rows = run(from, gradient(size), {.row_size = row_size}, where);
    CHECK(same_bits(whole.master, rows.master));
    CHECK(same_bits(whole.v, rows.v));
  }
}

}  // namespace

TEST_CASE("what is bfloat16 is rounded by the bits of its counter", "[peer][kernels]") {
  check_bits(kCpu);
}

TEST_CASE("a part of the counter left out is noticed", "[peer][kernels]") {
  left_out_parts_show(kCpu);
}

TEST_CASE("rounding does not depend on how elements are spread", "[peer][kernels]") {
  const int64_t size = 3 * (1 << 14) + 3;
  const State from = start(size), whole = run(from, gradient(size), {}, kCpu);
  check_rows(kCpu);
  for (const int64_t cut : {1, 128, 5001}) {
    const State head = run(from, gradient(size), {}, kCpu, 0, cut);
    const State tail = run(from, gradient(size), {}, kCpu, cut, size);
    Values joined = head.master;
    joined.insert(joined.end(), tail.master.begin(), tail.master.end());
    CHECK(same_bits(joined, whole.master));
  }
  const OddPieces odd;
  const State pieces = run(from, gradient(size), {}, kCpu);
  CHECK(same_bits(pieces.master, whole.master));
  CHECK(same_bits(pieces.m, whole.m));
  CHECK(same_bits(pieces.v, whole.v));
}

// A step of 0.0003 beside weights of 1, whose neighbours are 0.004 and 0.008 away: to the nearest
// no weight would ever move.
TEST_CASE("rounding keeps the mean, where the nearest would stand still", "[peer][kernels]") {
  const int64_t size = 1 << 16, steps = 20;
  State s{Values(size, 1.0), Values(size, 0.25), Values(size, 0.25)};
  const Values none(size, 0.0);
  const double decay = 3e-4;
  double m = 0.25, w = 1;
  for (uint32_t step = 0; step < steps; ++step) {
    Settings settings{.lr = 1, .beta1 = 0.999, .beta2 = 0.999, .eps = 1e30, .decay = decay};
    settings.rounding.step = step;
    s = run(s, none, settings, kCpu);
    m *= static_cast<float>(0.999);
    w *= 1 - decay;
  }
  const auto mean = [](const Values& x) {
    double sum = 0;
    for (const double value : x) sum += value;
    return sum / static_cast<double>(x.size());
  };
  // Five standard errors: the sum of `steps` roundings, each at most half a gap of 2^-7 or 2^-9.
  const double error = 5 * std::sqrt(static_cast<double>(steps) / size) / 2;
  CHECK(std::abs(mean(s.master) - w) < error / 128);
  CHECK(std::abs(mean(s.m) - m) < error / 512);
  CHECK(std::abs(mean(s.v) - m) < error / 512);
  CHECK(1 - w > 10 * error / 128);  // the nearest would have left 1
  CHECK(round_to(Element::BFloat16, 1 - decay) == 1);
}

TEST_CASE("what is not finite stays so", "[peer][kernels]") {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  const State from{{inf, -inf, nan, 1}, {0, 0, 0, nan}, {1, 1, 1, 1}};
  const State got = run(from, {0, 0, 0, 0}, {}, kCpu);
  CHECK(got.master[0] == inf);
  CHECK(got.master[1] == -inf);
  CHECK(std::isnan(got.master[2]));
  CHECK(std::isnan(got.master[3]));
  CHECK(std::isnan(got.m[3]));
}

TEST_CASE("rounding on CUDA", "[peer][kernels][gpu]") {
  if (!have_gpu()) return;
  check_bits(kGpu);
  left_out_parts_show(kGpu);
  check_rows(kGpu);
  // Arithmetic without a rounding that a fused product could leave out: the bits are the CPU's.
  const Settings exact{.beta1 = 0, .beta2 = 0, .eps = 0, .decay = 0};
  for (const int64_t size : {127, 4096}) {
    const State from = start(size), one = run(from, gradient(size), exact, kCpu),
                other = run(from, gradient(size), exact, kGpu);
    CHECK(same_bits(one.m, other.m));
    CHECK(same_bits(one.v, other.v));
  }
}
