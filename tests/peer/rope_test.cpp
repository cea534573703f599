// Rotary embedding beside multiplication by a complex number: halves, pairs, some channels only.
#include "support/kernel_test.h"
//
#include <complex>

#include "kernels/rope.h"

using namespace moue;
using namespace moue::test;

namespace {

struct Case {
  int64_t batch, length, heads, channels;
  int64_t gap;                   ///< elements between two tokens' heads
  int64_t begin = 0, width = 0;  ///< of the channels that turn; 0: all
  bool interleaved = false;
  int64_t turned() const { return width > 0 ? width : channels; }
  int64_t stride() const { return heads * channels + gap; }
  int64_t tokens() const { return batch * length; }
  int64_t half() const { return turned() / 2; }
  int64_t first(int64_t i) const { return begin + (interleaved ? 2 * i : i); }
  int64_t second(int64_t i) const { return begin + (interleaved ? 2 * i + 1 : half() + i); }
};

const std::vector<Case> kCases{{1, 1, 1, 2, 0},
                               {2, 5, 3, 8, 0},
                               {2, 7, 4, 24, 40},
                               {1, 33, 5, 48, 3},
                               {2, 9, 2, 128, 64},
                               {1, 3, 40, 64, 0},
                               // the first half, the last third, the middle
                               {2, 5, 3, 16, 0, 0, 8},
                               {2, 7, 2, 48, 0, 32, 16},
                               {1, 9, 3, 30, 2, 6, 10},
                               // pairs
                               {2, 5, 3, 8, 0, 0, 0, true},
                               {2, 7, 4, 192, 64, 128, 64, true},
                               {1, 33, 1, 12, 14, 0, 0, true},
                               {2, 6, 3, 20, 0, 6, 10, true}};

Values angles(const Case& c) {
  Values angle;
  for (int64_t t = 0; t < c.length; ++t) {
    for (int64_t i = 0; i < c.half(); ++i)
      angle.push_back((t + 1) * std::pow(10000.0, -static_cast<double>(i) / c.half()));
  }
  return angle;
}

Values map(Values x, double (*f)(double)) {
  for (double& v : x) v = static_cast<float>(f(v));
  return x;
}

// from is x (forward) or y (inverse); the result is the other.
Values run(const Case& c, Element element, const Values& from, bool inverse, Where where) {
  Numbers input(where, element, from);
  Numbers output(where, element,
                 inverse ? c.tokens() * c.stride() : c.tokens() * c.heads * c.channels);
  Array<float> cosine = floats(where, map(angles(c), std::cos));
  Array<float> sine = floats(where, map(angles(c), std::sin));
  void *x = inverse ? output.data() : input.data(), *y = inverse ? input.data() : output.data();
  kernels::rope({element, x, c.stride(), y, cosine.data(), sine.data(), c.batch, c.length, c.heads,
                 c.channels, c.begin, c.turned(), c.interleaved, inverse},
                where);
  return output.values();
}

// Channel pairs as complex numbers times exp(i angle), the others as they are.
Values reference(const Case& c, const Values& x) {
  const Values angle = angles(c);
  Values y(c.tokens() * c.heads * c.channels);
  for (int64_t b = 0; b < c.batch; ++b) {
    for (int64_t h = 0; h < c.heads; ++h) {
      for (int64_t t = 0; t < c.length; ++t) {
        const double* from = &x[(b * c.length + t) * c.stride() + h * c.channels];
        double* to = &y[((b * c.heads + h) * c.length + t) * c.channels];
        std::copy(from, from + c.channels, to);
        for (int64_t i = 0; i < c.half(); ++i) {
          const auto turned = std::complex(from[c.first(i)], from[c.second(i)]) *
                              std::polar(1.0, angle[t * c.half() + i]);
          to[c.first(i)] = turned.real();
          to[c.second(i)] = turned.imag();
        }
      }
    }
  }
  return y;
}

void check(const Case& c, Element element, Where where) {
  CAPTURE(c.batch, c.length, c.heads, c.channels, c.gap, element == Element::Float32);
  const Values x = random_values(c.tokens() * c.stride(), 1, 1, element);
  const Values y = run(c, element, x, false, where);
  CHECK(max_error(y, reference(c, x)) <= tolerance::of(element));

  Values back = run(c, element, y, true, where), wanted = x;
  int64_t touched = 0;
  for (size_t i = 0; i < back.size(); ++i) {
    if (static_cast<int64_t>(i) % c.stride() < c.heads * c.channels) continue;
    touched += std::isfinite(back[i]);  // the gap must keep its poison
    back[i] = wanted[i] = 0;
  }
  CHECK(touched == 0);
  CHECK(max_error(back, wanted) <= 2 * tolerance::of(element));
}

// <rope(x), dy> = <x, inverse(dy)>: the inverse is the gradient.
void inverse_is_the_gradient(const Case& c, Where where) {
  const Values x = random_values(c.tokens() * c.stride(), 1),
               dy = random_values(c.tokens() * c.stride(), 2);
  const Values y = run(c, Element::Float32, x, false, where),
               dx = run(c, Element::Float32, dy, true, where);
  double forward = 0, backward = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    forward += y[i] * dy[i];
    backward += x[i] * dx[i];
  }
  CHECK(forward == Approx(backward).epsilon(tolerance::kFloat32Sum));
}

void inverses_are_the_gradient(Where where) {
  inverse_is_the_gradient({2, 7, 3, 24, 0}, where);
  inverse_is_the_gradient({2, 7, 3, 24, 0, 8, 12, true}, where);
}

void swapped_inputs_show(Where where) {
  const Case c{2, 9, 4, 24, 0};
  for (const Element element : kElements) {
    const double visible = tolerance::kVisible * tolerance::of(element);
    const Values x = random_values(c.tokens() * c.stride(), 1, 1, element);
    Case transposed = c;
    std::swap(transposed.length, transposed.heads);
    CHECK(max_error(run(transposed, element, x, false, where), reference(c, x)) > visible);
    CHECK(max_error(run(c, element, x, true, where), reference(c, x)) > visible);
    Case pairs = c, later = c, fewer = c;
    pairs.interleaved = true;
    later.width = fewer.width = c.channels / 2;
    later.begin = c.channels / 2;
    CHECK(max_error(run(pairs, element, x, false, where), reference(c, x)) > visible);
    CHECK(max_error(run(later, element, x, false, where), reference(fewer, x)) > visible);
  }
}

}  // namespace

TEST_CASE("rope turns pairs of channels", "[peer][kernels]") {
  for (const Case& c : kCases) {
    for (const Element element : kElements) check(c, element, kCpu);
  }
  inverses_are_the_gradient(kCpu);
}

TEST_CASE("rope shows transposed and inverse", "[peer][kernels]") { swapped_inputs_show(kCpu); }

TEST_CASE("rope does not depend on how tokens are spread", "[peer][kernels]") {
  const Case c{3, 50, 2, 24, 8};
  const Values x = random_values(c.tokens() * c.stride(), 1);
  const Values whole = run(c, Element::Float32, x, false, kCpu);
  const OddPieces odd;
  CHECK(same_bits(whole, run(c, Element::Float32, x, false, kCpu)));
}

TEST_CASE("rope on CUDA", "[peer][kernels][gpu]") {
  if (!have_gpu()) return;
  for (const Case& c : kCases) {
    for (const Element element : kElements) check(c, element, kGpu);
  }
  inverses_are_the_gradient(kGpu);
  swapped_inputs_show(kGpu);
}
