// One case per kernel of the routing: router, permutation, trajectory.
#include <fmt/format.h>

#include "bench/kernel_memory.h"
#include "kernels/permute.h"
#include "kernels/router.h"
#include "kernels/trajectory.h"

namespace moue::bench {
namespace {

// A closed pool would be too kind: all slots are open.
std::string router_shape(const Shapes& s) {
  return fmt::format("T {} N {} S {} K {}", s.tokens, s.home_slots, s.slots, s.chosen);
}

using Score = kernels::RouterRule::Score;

// DeepSeek-V3's rule is the one with most to do per slot, SparseMixer's per choice.
kernels::RouterRule rule_of(Score score, const Shapes& s) {
  kernels::RouterRule rule;
  rule.score = score;
  rule.jitter = 0.01f;
  if (score != Score::Sigmoid) return rule;
  rule.group_score = kernels::RouterRule::GroupScore::SumOfTwo;
  rule.groups = s.home_slots % 8 == 0 ? 8 : 1;
  rule.kept_groups = rule.groups == 8 ? 4 : 1;
  return rule;
}

kernels::RouterForward router_args(Memory& m, Element e, const Shapes& s, Score score) {
  const int64_t foreign = s.slots - s.home_slots, chosen = s.tokens * s.chosen;
  return {.element = e,
          .rule = rule_of(score, s),
          .home = m.numbers(e, s.tokens * s.home_slots),
          .foreign = m.numbers(e, s.tokens * foreign),
          .beta = m.floats(foreign),
          .bonus = m.floats(s.tokens * s.slots),
          .log_visibility = m.take<float>(s.slots),
          .correction = score == Score::Sigmoid ? m.floats(s.slots) : nullptr,
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

template <Score kScore>
const char* case_name(const char* softmax, const char* sigmoid, const char* sparse) {
  return kScore == Score::Softmax ? softmax : kScore == Score::Sigmoid ? sigmoid : sparse;
}

template <Score kScore>
Case router_forward(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const kernels::RouterForward a = router_args(*m, e, s, kScore);
  const double bytes = 1.0 * s.tokens * (s.slots * (size_of(e) + 8) + s.chosen * 12);
  const char* name =
      case_name<kScore>("router_forward", "router_forward_groups", "router_forward_sparse");
  return make_case(name, router_shape(s), bytes, m, kernels::router_forward, a, where);
}

template <Score kScore>
Case router_backward(Where where, Element e, const Shapes& s) {
  auto m = std::make_shared<Memory>(where);
  const kernels::RouterForward f = router_args(*m, e, s, kScore);
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
  const char* name =
      case_name<kScore>("router_backward", "router_backward_groups", "router_backward_sparse");
  return make_case(name, router_shape(s), bytes, m, kernels::router_backward, a, where);
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

}  // namespace

std::vector<Make> routing_cases() {
  return {router_forward<Score::Softmax>,
          router_backward<Score::Softmax>,
          router_forward<Score::Sigmoid>,
          router_backward<Score::Sigmoid>,
          router_forward<Score::Sparse>,
          router_backward<Score::Sparse>,
          permute,
          gather_rows,
          combine_rows,
          gain_backward,
          trajectory_read,
          trajectory_read_backward};
}

}  // namespace moue::bench
