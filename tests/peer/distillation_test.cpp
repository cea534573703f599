// Cross-entropy mixed with the divergence from a teacher, beside its definition in double and
// central differences.
#include "support/kernel_test.h"
//
#include "kernels/distillation.h"

using namespace moue;
using namespace moue::test;

namespace {

struct Case {
  int64_t rows, vocabulary;
  float share = 0.6f, temperature = 2.0f;
};

const std::vector<Case> kCases{{1, 1},
                               {3, 24},
                               {7, 61, 0.3f, 1.0f},
                               {5, 127, 1.0f, 0.5f},
                               {4, 129, 0.0f, 3.0f},
                               {9, 1000},
                               {2, 4096, 0.5f, 1.0f},
                               {2, 50257}};

constexpr float kScale = 0.37f;

struct Inputs {
  Values logits, teacher;
  std::vector<int64_t> target;
};

Inputs inputs(const Case& c, Element element) {
  Inputs in{random_values(c.rows * c.vocabulary, 1, 6, element),
            random_values(c.rows * c.vocabulary, 2, 6, element),
            {}};
  for (int64_t row = 0; row < c.rows; ++row)
    in.target.push_back(row % 3 == 2 ? -1 : (row * 7919 + 5) % c.vocabulary);
  return in;
}

struct Outputs {
  Values logits;
  std::vector<float> loss, divergence;
};

Outputs run(const Case& c, Element element, const Inputs& in, float scale, Where where) {
  Numbers logits(where, element, in.logits), teacher(where, element, in.teacher);
  Array<int64_t> target(where, in.target);
  Array<float> loss(where, c.rows), divergence(where, c.rows);
  kernels::distillation(
      {{element, logits.data(), target.data(), loss.data(), scale, c.rows, c.vocabulary},
       teacher.data(),
       divergence.data(),
       c.share,
       c.temperature},
      where);
  CHECK(same_bits(teacher.values(), in.teacher));
  return {logits.values(), loss.values(), divergence.values()};
}

Values log_softmax(Values z, double temperature) {
  for (double& x : z) x /= temperature;
  const double top = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (const double x : z) sum += std::exp(x - top);
  for (double& x : z) x -= top + std::log(sum);
  return z;
}

double divergence_of(const Values& teacher, const Values& logits, double t) {
  const Values p = log_softmax(teacher, t), q = log_softmax(logits, t);
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += std::exp(p[i]) * (p[i] - q[i]);
  return t * t * sum;
}

Values row_of(const Case& c, const Values& values, int64_t row) {
  const auto begin = values.begin() + row * c.vocabulary;
  return {begin, begin + c.vocabulary};
}

struct Wanted {
  Values loss, divergence, gradient;
};

// The gradient from differences of the loss where that is quick, else in closed form.
Wanted wanted_of(const Case& c, const Inputs& in) {
  Wanted all;
  const double t = c.temperature;
  for (int64_t row = 0; row < c.rows; ++row) {
    const Values z = row_of(c, in.logits, row), teacher = row_of(c, in.teacher, row);
    const int64_t target = in.target[row];
    const auto mixed = [&](const Values& x) {
      return (1.0 - c.share) * -log_softmax(x, 1)[target] + c.share * divergence_of(teacher, x, t);
    };
    Values g(z.size(), 0.0);
    if (target >= 0 && c.vocabulary <= 200) {
      g = gradient_of(mixed, z);
    } else if (target >= 0) {
      const Values one = log_softmax(z, 1), q = log_softmax(z, t), p = log_softmax(teacher, t);
      for (size_t i = 0; i < z.size(); ++i)
        g[i] = (1.0 - c.share) * (std::exp(one[i]) - (static_cast<int64_t>(i) == target)) +
               c.share * t * (std::exp(q[i]) - std::exp(p[i]));
    }
    for (const double x : g) all.gradient.push_back(kScale * x);
    all.loss.push_back(target < 0 ? 0 : -log_softmax(z, 1)[target]);
    all.divergence.push_back(target < 0 ? 0 : divergence_of(teacher, z, t));
  }
  return all;
}

void check(const Case& c, Element element, Where where) {
  CAPTURE(c.rows, c.vocabulary, c.share, c.temperature, element == Element::Float32);
  const Inputs in = inputs(c, element);
  const Outputs got = run(c, element, in, kScale, where);
  const Wanted wanted = wanted_of(c, in);
  CHECK(max_error(doubles(got.loss), wanted.loss) <= tolerance::kFloat32);
  CHECK(max_error(doubles(got.divergence), wanted.divergence) <= tolerance::kFloat32Sum);
  CHECK(max_error(got.logits, wanted.gradient) <= tolerance::of(element, tolerance::kFloat32Sum));

  const Outputs only_loss = run(c, element, in, 0, where);
  CHECK(same_bits(only_loss.logits, in.logits));
  CHECK(same_bits(only_loss.loss, got.loss));
  CHECK(same_bits(only_loss.divergence, got.divergence));
}

void check_all(Where where) {
  for (const Case& c : kCases) {
    for (const Element element : kElements) check(c, element, where);
  }
}

// Two models that agree have a divergence of 0 and not a small number, whatever t.
void equal_rows(Where where) {
  for (const float temperature : {1.0f, 0.7f, 4.0f}) {
    for (const Element element : kElements) {
      const Case c{7, 127, 1.0f, temperature};
      Inputs in = inputs(c, element);
      in.teacher = in.logits;
      const Outputs got = run(c, element, in, kScale, where);
      for (const float d : got.divergence) CHECK(d == 0);
      for (const double g : got.logits) CHECK(g == 0);
      in.teacher[5] += 0.5;
      CHECK(run(c, element, in, kScale, where).divergence[0] != 0);
    }
  }
}

void swapped_inputs_show(Where where) {
  const Case c{7, 61};
  for (const Element element : kElements) {
    const Inputs in = inputs(c, element);
    const Wanted wanted = wanted_of(c, in);
    const auto misses = [&](const Case& other, const Inputs& changed) {
      const Outputs got = run(other, element, changed, kScale, where);
      CHECK(max_error(doubles(got.divergence), wanted.divergence) >
            tolerance::kVisible * tolerance::kFloat32Sum);
      CHECK(max_error(got.logits, wanted.gradient) >
            5 * tolerance::of(element, tolerance::kFloat32Sum));
    };
    Inputs swapped = in;
    std::swap(swapped.logits, swapped.teacher);
    misses(c, swapped);
    Case other = c;
    other.temperature = 1.5f;
    misses(other, in);
    other = c;
    other.share = 0.3f;
    const Outputs got = run(other, element, in, kScale, where);
    CHECK(max_error(got.logits, wanted.gradient) >
          5 * tolerance::of(element, tolerance::kFloat32Sum));
  }
}

}  // namespace

TEST_CASE("distillation agrees with its definition", "[peer][kernels]") { check_all(kCpu); }

TEST_CASE("equal rows have no divergence", "[peer][kernels]") { equal_rows(kCpu); }

TEST_CASE("distillation shows swapped models and other settings", "[peer][kernels]") {
  swapped_inputs_show(kCpu);
}

TEST_CASE("distillation does not depend on how rows are spread", "[peer][kernels]") {
  const Case c{37, 61};
  const Inputs in = inputs(c, Element::BFloat16);
  const Outputs whole = run(c, Element::BFloat16, in, kScale, kCpu);
  const OddPieces odd;
  const Outputs pieces = run(c, Element::BFloat16, in, kScale, kCpu);
  CHECK(same_bits(whole.logits, pieces.logits));
  CHECK(same_bits(whole.divergence, pieces.divergence));
}

TEST_CASE("distillation on CUDA", "[peer][kernels][gpu]") {
  if (!have_gpu()) return;
  check_all(kGpu);
  equal_rows(kGpu);
  swapped_inputs_show(kGpu);
}
