// One case per kernel: its memory, its arguments, its bytes.
#include "bench/kernel_cases.h"

#include <fmt/format.h>

#include "bench/kernel_memory.h"
#include "kernels/adamw.h"
#include "kernels/cross_entropy.h"
#include "kernels/glu.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/rows.h"

namespace moue::bench {
namespace {

Case rms_norm_forward(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const int64_t size = s.tokens * s.width;
  const kernels::RmsNormForward a{e,
                                  m->numbers(e, size),
                                  m->numbers(e, s.width),
                                  m->numbers(e, size),
                                  m->floats(s.tokens),
                                  s.tokens,
                                  s.width,
                                  1e-5f};
  return make_case("rms_norm_forward", fmt::format("T {} D {}", s.tokens, s.width),
                   2.0 * size * size_of(e), m, kernels::rms_norm_forward, a, where);
}

Case rms_norm_backward(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const int64_t size = s.tokens * s.width;
  const kernels::RmsNormBackward a{e,
                                   m->numbers(e, size),
                                   m->numbers(e, s.width),
                                   m->numbers(e, size),
                                   m->floats(s.tokens),
                                   m->numbers(e, size),
                                   m->floats(s.width),
                                   m->take<float>(kernels::rms_norm_partials(s.tokens) * s.width),
                                   s.tokens,
                                   s.width};
  return make_case("rms_norm_backward", fmt::format("T {} D {}", s.tokens, s.width),
                   3.0 * size * size_of(e), m, kernels::rms_norm_backward, a, where);
}

Case rope(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const int64_t length = 1024, batch = s.tokens / length, row = s.heads * s.head_width;
  const kernels::Rope a{e,
                        m->numbers(e, s.tokens * row),
                        row,
                        m->numbers(e, s.tokens * row),
                        m->floats(length * s.head_width / 2),
                        m->floats(length * s.head_width / 2),
                        batch,
                        length,
                        s.heads,
                        s.head_width,
                        0,
                        s.head_width,
                        false,
                        false};
  return make_case("rope", fmt::format("T {} H {} A {}", s.tokens, s.heads, s.head_width),
                   2.0 * batch * length * row * size_of(e), m, kernels::rope, a, where);
}

Case glu_forward(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const int64_t rows = s.tokens * s.chosen, size = rows * s.expert_width;
  const kernels::GluForward a{
      e, {}, m->numbers(e, 2 * size), m->floats(rows), m->numbers(e, size), rows, s.expert_width};
  return make_case("glu_forward", fmt::format("R {} F {}", rows, s.expert_width),
                   3.0 * size * size_of(e), m, kernels::glu_forward, a, where);
}

Case glu_backward(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const int64_t rows = s.tokens * s.chosen, size = rows * s.expert_width;
  const kernels::GluBackward a{e,
                               {},
                               m->numbers(e, 2 * size),
                               m->floats(rows),
                               m->numbers(e, size),
                               m->numbers(e, 2 * size),
                               m->numbers(e, size),
                               m->floats(rows),
                               rows,
                               s.expert_width};
  return make_case("glu_backward", fmt::format("R {} F {}", rows, s.expert_width),
                   6.0 * size * size_of(e), m, kernels::glu_backward, a, where);
}

Case cross_entropy(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const int64_t rows = s.tokens / 8;  // a chunk
  const kernels::CrossEntropy a{e,
                                m->numbers(e, rows * s.vocabulary),
                                m->copy_of(std::vector<int64_t>(rows, 7)),
                                m->floats(rows),
                                1e-3f,
                                rows,
                                s.vocabulary};
  return make_case("cross_entropy", fmt::format("T {} V {}", rows, s.vocabulary),
                   2.0 * rows * s.vocabulary * size_of(e), m, kernels::cross_entropy, a, where);
}

// Weights and moments in one element type: float32, or bfloat16 rounded stochastically.
Case adamw(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const int64_t n = s.parameters;
  const bool wide = e == Element::Float32;
  const std::vector<uint16_t> quarter(wide ? 0 : n, 0x3e80);
  const kernels::AdamwArgs a{
      .master = m->numbers(e, n),
      .grad = m->floats(n),
      .m = m->numbers(e, n),
      .v = wide ? static_cast<void*>(m->copy_of(std::vector(n, 0.25f))) : m->copy_of(quarter),
      .size = n,
      .lr = 1e-4,
      .beta1 = 0.9,
      .beta2 = 0.95,
      .eps = 1e-8,
      .decay = 0.1,
      .scale = 1,
      .bias1 = 0.5,
      .bias2 = 0.5,
      .weights = e,
      .moments = e};
  return make_case("adamw", fmt::format("{} parameters", n), (4.0 + 6 * size_of(e)) * n, m,
                   kernels::adamw, a, where);
}

Case sum_of_squares(Where where, Element, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const int64_t n = s.parameters;
  const float* x = m->floats(n);
  double* partial = m->take<double>(kernels::sum_of_squares_partials(n));
  double* result = m->take<double>(1);
  return {
      "sum_of_squares", fmt::format("{} parameters", n), 4.0 * n,
      [m, x, n, partial, result, where] { kernels::sum_of_squares(x, n, partial, result, where); },
      true};
}

}  // namespace

Shapes cpu_shapes() { return {4096, 2048, 768, 128, 64, 8, 32000, 16, 128, 1 << 24}; }
Shapes cuda_shapes() { return {16384, 2048, 768, 256, 128, 8, 151936, 32, 128, 1 << 28}; }
Shapes quick_shapes() { return {1024, 128, 64, 32, 8, 2, 1000, 4, 32, 1 << 16}; }

Case copy_case(Where where, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const auto bytes = static_cast<size_t>(s.parameters) * 4;
  void *from = m->numbers(Element::Float32, s.parameters), *to = m->take<float>(s.parameters);
  return {
      "copy", fmt::format("{} MB", bytes >> 20), 2.0 * static_cast<double>(bytes),
      [m, from, to, bytes, where] {
        if (where.cuda) return device::copy(to, from, bytes);
        kernels::for_rows(static_cast<int64_t>(bytes), 1 << 20, [&](int64_t begin, int64_t end) {
          std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin,
                      static_cast<size_t>(end - begin));
        });
      }};
}

std::vector<Make> kernel_cases() {
  std::vector<Make> cases = {rms_norm_forward, rms_norm_backward, rope, glu_forward, glu_backward};
  for (const Make make : routing_cases()) cases.push_back(make);
  for (const Make make : {cross_entropy, adamw, sum_of_squares}) cases.push_back(make);
  return cases;
}

}  // namespace moue::bench
