// One case per kernel: its memory, its arguments, its bytes.
#include "bench/kernel_cases.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <memory>

#include "core/philox.h"
#include "kernels/adamw.h"
#include "kernels/clamped_glu.h"
#include "kernels/cross_entropy.h"
#include "kernels/permute.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/router.h"
#include "kernels/rows.h"
#include "kernels/swiglu.h"
#include "kernels/trajectory.h"
#include "support/kernel_device.h"

namespace moue::bench {
namespace {

using kernels::Element;
using kernels::Where;
namespace device = moue::test::device;

int64_t size_of(Element element) { return element == Element::Float32 ? 4 : 2; }

// Memory that lives as long as the case.
class Memory {
 public:
  explicit Memory(Where where) : where_(where) {}

  template <class T>
  T* take(int64_t size) {
    return static_cast<T*>(bytes(size * static_cast<int64_t>(sizeof(T))));
  }
  template <class T>
  T* copy_of(const std::vector<T>& values) {
    T* memory = take<T>(static_cast<int64_t>(values.size()));
    const size_t bytes = values.size() * sizeof(T);
    where_.cuda ? device::to_device(memory, values.data(), bytes)
                : (void)std::memcpy(memory, values.data(), bytes);
    return memory;
  }
  /// Numbers in [-1, 1) that repeat after a while.
  void* numbers(Element element, int64_t size) {
    constexpr int64_t kPeriod = 4099;
    std::vector<uint16_t> raw(static_cast<size_t>(size * size_of(element) / 2));
    const int64_t halves = size_of(element) / 2;
    for (int64_t i = 0; i < std::min(size, kPeriod); ++i) {
      const auto draw = philox(1, {static_cast<uint32_t>(i), 0, 0, 0})[0];
      const float x = static_cast<float>(draw / 2147483648.0 - 1.0);
      uint32_t bits;
      std::memcpy(&bits, &x, sizeof bits);
      raw[i * halves + halves - 1] = static_cast<uint16_t>(bits >> 16);
    }
    for (int64_t at = kPeriod; at < size; at += kPeriod)
      std::memcpy(&raw[at * halves], raw.data(),
                  static_cast<size_t>(std::min(kPeriod, size - at) * halves * 2));
    return copy_of(raw);
  }
  float* floats(int64_t size) { return static_cast<float*>(numbers(Element::Float32, size)); }

 private:
  void* bytes(int64_t size) {
    const auto wanted = static_cast<size_t>(std::max<int64_t>(size, 16));
    if (where_.cuda) {
      owned_.emplace_back(device::allocate(wanted), device::release);
    } else {
      void* memory = std::aligned_alloc(64, (wanted + 63) / 64 * 64);
      std::memset(memory, 0, wanted);  // pages are there before the clock runs
      owned_.emplace_back(memory, std::free);
    }
    return owned_.back().get();
  }

  Where where_;
  std::vector<std::shared_ptr<void>> owned_;
};

template <class Args>
Case make_case(std::string name, std::string shape, double bytes, std::shared_ptr<Memory> memory,
               void (*kernel)(const Args&, Where), const Args& args, Where where) {
  return {std::move(name), std::move(shape), bytes,
          [memory, kernel, args, where] { kernel(args, where); }};
}

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

Case swiglu_forward(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const int64_t rows = s.tokens * s.chosen, size = rows * s.expert_width;
  const kernels::SwigluForward a{
      e, m->numbers(e, 2 * size), m->floats(rows), m->numbers(e, size), rows, s.expert_width};
  return make_case("swiglu_forward", fmt::format("R {} F {}", rows, s.expert_width),
                   3.0 * size * size_of(e), m, kernels::swiglu_forward, a, where);
}

Case swiglu_backward(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const int64_t rows = s.tokens * s.chosen, size = rows * s.expert_width;
  const kernels::SwigluBackward a{e,
                                  m->numbers(e, 2 * size),
                                  m->floats(rows),
                                  m->numbers(e, size),
                                  m->numbers(e, 2 * size),
                                  m->numbers(e, size),
                                  m->floats(rows),
                                  rows,
                                  s.expert_width};
  return make_case("swiglu_backward", fmt::format("R {} F {}", rows, s.expert_width),
                   6.0 * size * size_of(e), m, kernels::swiglu_backward, a, where);
}

// A closed pool would be too kind: all slots are open.
std::string router_shape(const Shapes& s) {
  return fmt::format("T {} N {} S {} K {}", s.tokens, s.home_slots, s.slots, s.chosen);
}

kernels::RouterForward router_args(Memory& m, Element e, const Shapes& s) {
  const int64_t foreign = s.slots - s.home_slots, chosen = s.tokens * s.chosen;
  return {.element = e,
          .rule = kernels::RouterRule::SoftmaxChosen,
          .home = m.numbers(e, s.tokens * s.home_slots),
          .foreign = m.numbers(e, s.tokens * foreign),
          .beta = m.floats(foreign),
          .bonus = m.floats(s.tokens * s.slots),
          .log_visibility = m.take<float>(s.slots),
          .pool_bias = m.floats(s.slots),
          .scale = m.floats(foreign),
          .z = m.floats(s.tokens * s.slots),
          .chosen = m.copy_of(std::vector<int32_t>(chosen, 0)),
          .gate = m.floats(chosen),
          .weight = m.floats(chosen),
          .count = m.take<int64_t>(s.slots),
          .probability = m.take<double>(s.slots),
          .partial = m.take<double>(kernels::router_partials(s.tokens) * s.slots),
          .tokens = s.tokens,
          .home_slots = s.home_slots,
          .slots = s.slots,
          .chosen_per_token = s.chosen};
}

constexpr float kAlpha = 1.702f, kLimit = 7.0f;  // gpt-oss

Case clamped_glu_forward(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const int64_t rows = s.tokens * s.chosen, size = rows * s.expert_width;
  const kernels::ClampedGluForward a{
      e,    m->numbers(e, 2 * size), m->floats(rows), m->numbers(e, size),
      rows, s.expert_width,          kAlpha,          kLimit};
  return make_case("clamped_glu_forward", fmt::format("R {} F {}", rows, s.expert_width),
                   3.0 * size * size_of(e), m, kernels::clamped_glu_forward, a, where);
}

Case clamped_glu_backward(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const int64_t rows = s.tokens * s.chosen, size = rows * s.expert_width;
  const kernels::ClampedGluBackward a{e,
                                      m->numbers(e, 2 * size),
                                      m->floats(rows),
                                      m->numbers(e, size),
                                      m->numbers(e, 2 * size),
                                      m->numbers(e, size),
                                      m->floats(rows),
                                      rows,
                                      s.expert_width,
                                      kAlpha,
                                      kLimit};
  return make_case("clamped_glu_backward", fmt::format("R {} F {}", rows, s.expert_width),
                   6.0 * size * size_of(e), m, kernels::clamped_glu_backward, a, where);
}

Case router_forward(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const kernels::RouterForward a = router_args(*m, e, s);
  const double bytes = 1.0 * s.tokens * (s.slots * (size_of(e) + 8) + s.chosen * 12);
  return make_case("router_forward", router_shape(s), bytes, m, kernels::router_forward, a, where);
}

Case router_backward(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const kernels::RouterForward f = router_args(*m, e, s);
  const int64_t foreign = s.slots - s.home_slots;
  kernels::router_forward(f, where);
  const kernels::RouterBackward a{
      .element = e,
      .rule = f.rule,
      .z = f.z,
      .chosen = f.chosen,
      .gate = f.gate,
      .scale = f.scale,
      .dgate = m->floats(s.tokens * s.chosen),
      .dweight = m->floats(s.tokens * s.chosen),
      .balance = m->floats(s.slots),
      .balance_scale = 0.01f,
      .dz = m->floats(s.tokens * s.slots),
      .dhome = m->numbers(e, s.tokens * s.home_slots),
      .dforeign = m->numbers(e, s.tokens * foreign),
      .dbeta = m->floats(foreign),
      .dscale = m->floats(foreign),
      .partial = m->take<float>(kernels::router_partials(s.tokens) * 2 * foreign),
      .tokens = s.tokens,
      .home_slots = s.home_slots,
      .slots = s.slots,
      .chosen_per_token = s.chosen};
  const double bytes = 1.0 * s.tokens * (s.slots * (size_of(e) + 8) + s.chosen * 16);
  return make_case("router_backward", router_shape(s), bytes, m, kernels::router_backward, a,
                   where);
}

// Slots drawn for each token, and the order they give.
struct Sorted {
  kernels::Permute permute;
  int64_t rows;
};

Sorted sorted(Memory& m, const Shapes& s, Where where) {
  const int64_t rows = s.tokens * s.chosen;
  std::vector<int32_t> chosen(rows);
  std::vector<int64_t> count(s.slots, 0);
  for (int64_t i = 0; i < rows; ++i) {
    const auto draw = philox(2, {static_cast<uint32_t>(i / s.chosen), 0, 0, 0})[0];
    chosen[i] = static_cast<int32_t>((draw + i % s.chosen * 37) % s.slots);
    ++count[chosen[i]];
  }
  const kernels::Permute a{m.copy_of(chosen),
                           m.copy_of(count),
                           m.take<int32_t>(rows),
                           m.take<int32_t>(rows),
                           m.take<int32_t>(rows),
                           m.take<int32_t>(kernels::permute_partials(rows) * s.slots),
                           s.tokens,
                           s.chosen,
                           s.slots};
  kernels::permute(a, where);
  return {a, rows};
}

std::string permute_shape(const Shapes& s) {
  return fmt::format("T {} K {} S {} D {}", s.tokens, s.chosen, s.slots, s.width);
}

Case permute(Where where, Element, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const Sorted order = sorted(*m, s, where);
  Case c = make_case("permute", permute_shape(s), 16.0 * order.rows, m, kernels::permute,
                     order.permute, where);
  c.float32_only = true;
  return c;
}

const void* const* gain_table(Memory& m, Element e, const Shapes& s) {
  const char* gains = static_cast<const char*>(m.numbers(e, s.slots * s.width));
  std::vector<const void*> table;
  for (int64_t slot = 0; slot < s.slots; ++slot)
    table.push_back(gains + slot * s.width * size_of(e));
  return m.copy_of(table);
}

double moved_rows(Element e, const Shapes& s) {
  return 1.0 * s.tokens * (s.chosen + 1) * s.width * size_of(e);
}

Case gather_rows(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const Sorted order = sorted(*m, s, where);
  const kernels::GatherRows a{e,
                              e,
                              m->numbers(e, s.tokens * s.width),
                              gain_table(*m, e, s),
                              nullptr,
                              order.permute.token_of_row,
                              order.permute.slot_of_row,
                              m->numbers(e, order.rows * s.width),
                              order.rows,
                              s.width};
  return make_case("gather_rows", permute_shape(s), moved_rows(e, s), m, kernels::gather_rows, a,
                   where);
}

Case combine_rows(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const Sorted order = sorted(*m, s, where);
  const kernels::CombineRows a{e,
                               e,
                               m->numbers(e, order.rows * s.width),
                               nullptr,
                               order.permute.row_of,
                               order.permute.slot_of_row,
                               m->numbers(e, s.tokens * s.width),
                               s.tokens,
                               s.chosen,
                               s.width};
  return make_case("combine_rows", permute_shape(s), moved_rows(e, s), m, kernels::combine_rows, a,
                   where);
}

Case gain_backward(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const Sorted order = sorted(*m, s, where);
  const kernels::GainBackward a{e,
                                e,
                                m->numbers(e, order.rows * s.width),
                                m->numbers(e, s.tokens * s.width),
                                order.permute.token_of_row,
                                order.permute.count,
                                m->floats(s.slots * s.width),
                                nullptr,
                                s.slots,
                                s.width};
  return make_case("gain_backward", permute_shape(s), moved_rows(e, s), m, kernels::gain_backward,
                   a, where);
}

constexpr int64_t kStateDim = 64;

Case trajectory_read(Where where, Element, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const Sorted order = sorted(*m, s, where);
  const kernels::TrajectoryRead a{m->floats(order.rows),
                                  order.permute.chosen,
                                  m->floats(s.slots * kStateDim),
                                  m->floats(s.tokens * kStateDim),
                                  s.tokens,
                                  s.chosen,
                                  kStateDim};
  Case c =
      make_case("trajectory_read", permute_shape(s), 8.0 * order.rows + 4.0 * s.tokens * kStateDim,
                m, kernels::trajectory_read, a, where);
  c.float32_only = true;
  return c;
}

Case trajectory_read_backward(Where where, Element, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const Sorted order = sorted(*m, s, where);
  const kernels::TrajectoryReadBackward a{m->floats(s.tokens * kStateDim),
                                          m->floats(order.rows),
                                          order.permute.chosen,
                                          m->floats(s.slots * kStateDim),
                                          order.permute.token_of_row,
                                          order.permute.count,
                                          m->floats(order.rows),
                                          m->floats(s.slots * kStateDim),
                                          s.tokens,
                                          s.chosen,
                                          s.slots,
                                          kStateDim};
  Case c = make_case("trajectory_read_backward", permute_shape(s),
                     16.0 * order.rows + 4.0 * s.tokens * kStateDim, m,
                     kernels::trajectory_read_backward, a, where);
  c.float32_only = true;
  return c;
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

Case adamw(Where where, Element, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const int64_t n = s.parameters;
  std::vector<float> moment(n, 0.25f);
  const kernels::AdamwArgs a{.master = m->floats(n),
                             .grad = m->floats(n),
                             .m = m->floats(n),
                             .v = m->copy_of(moment),
                             .size = n,
                             .lr = 1e-4,
                             .beta1 = 0.9,
                             .beta2 = 0.95,
                             .eps = 1e-8,
                             .decay = 0.1,
                             .scale = 1,
                             .bias1 = 0.5,
                             .bias2 = 0.5};
  Case c =
      make_case("adamw", fmt::format("{} parameters", n), 28.0 * n, m, kernels::adamw, a, where);
  c.float32_only = true;
  return c;
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
  return {rms_norm_forward,
          rms_norm_backward,
          rope,
          swiglu_forward,
          swiglu_backward,
          clamped_glu_forward,
          clamped_glu_backward,
          router_forward,
          router_backward,
          permute,
          gather_rows,
          combine_rows,
          gain_backward,
          trajectory_read,
          trajectory_read_backward,
          cross_entropy,
          adamw,
          sum_of_squares};
}

}  // namespace moue::bench
