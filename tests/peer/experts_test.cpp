// The expert block beside a loop over tokens and their experts in float64: biases, both
// activations, norms with a bias, xhat in float32.
#include "support/torch_test.h"
//
#include "model/experts.h"
#include "support/tolerances.h"
#include "support/torch_blocks.h"
#include "support/torch_compare.h"

using namespace moue;
using namespace moue::test;

namespace {

constexpr int64_t kTokens = 37, kWidth = 24, kExpertWidth = 10, kSlots = 5, kChosen = 2, kNorms = 2;

struct Case {
  std::string name;
  bool expert_bias = false, norm_bias = false, wide = false;
  ActivationSpec activation = {};
};

std::vector<Case> cases() {
  const ActivationSpec clamped{Activation::Clamped, 1.702, 2.5};
  return {{"plain"},
          {"expert biases", true},
          {"norm biases", false, true},
          {"clamped", false, false, false, clamped},
          {"all", true, true, true, clamped}};
}

// x, weight [T, K], gate_up [S, 2F, D], down [S, D, F], their biases, gains [2, D], norm biases
std::vector<at::Tensor> inputs(const Case& c) {
  const at::Tensor none;
  return {random_tensor({kTokens, kWidth}, 1),
          random_tensor({kTokens, kChosen}, 2).abs(),
          random_tensor({kSlots, 2 * kExpertWidth, kWidth}, 3, 0.4),
          random_tensor({kSlots, kWidth, kExpertWidth}, 4, 0.4),
          c.expert_bias ? random_tensor({kSlots, 2 * kExpertWidth}, 5, 0.5) : none,
          c.expert_bias ? random_tensor({kSlots, kWidth}, 6, 0.5) : none,
          1 + random_tensor({kNorms, kWidth}, 7, 0.3),
          c.norm_bias ? random_tensor({kNorms, kWidth}, 8, 0.5) : none};
}

// The last slot is chosen by nobody.
at::Tensor chosen_slots() {
  at::Tensor chosen = at::empty({kTokens, kChosen}, at::kInt);
  for (int64_t t = 0; t < kTokens; ++t) {
    chosen.data_ptr<int32_t>()[2 * t] = static_cast<int32_t>(t * 7 % 3);
    chosen.data_ptr<int32_t>()[2 * t + 1] = static_cast<int32_t>((t * 7 % 3 + 1 + t % 2) % 4);
  }
  return chosen;
}

// The table's tensors and where their gradients go. What the block itself adds is handed to the
// leaves at the end.
struct Table {
  std::vector<at::Tensor> values, grads;
  ExpertTable table;

  Table(const Case& c, const std::vector<at::Tensor>& in) {
    for (const at::Tensor& x : in) {
      values.push_back(x.defined() ? x.detach() : x);
      grads.push_back(x.defined() ? at::zeros_like(x, at::kFloat) : x);
    }
    table.expert_width = kExpertWidth;
    table.activation = c.activation;
    table.expert = [this](int64_t slot) {
      const auto at = [&](const std::vector<at::Tensor>& from, size_t i) {
        return from[i].defined() ? from[i].select(0, slot) : from[i];
      };
      return Expert{at(values, 2), at(values, 3), at(values, 4), at(values, 5),
                    at(grads, 2),  at(grads, 3),  at(grads, 4),  at(grads, 5)};
    };
    for (int64_t slot = 0; slot < kSlots; ++slot) {
      table.gain.push_back(values[6].select(0, slot % kNorms));
      table.gain_grad.push_back(grads[6].select(0, slot % kNorms));
      if (!c.norm_bias) continue;
      table.bias.push_back(values[7].select(0, slot % kNorms));
      table.bias_grad.push_back(grads[7].select(0, slot % kNorms));
    }
  }
};

Permutation permutation() {
  const at::Tensor chosen = chosen_slots();
  return make_permutation(chosen, at::bincount(chosen.reshape({-1}).to(at::kLong), {}, kSlots));
}

at::Tensor plain(const Case& c, const std::vector<at::Tensor>& in, bool weighted) {
  const at::Tensor chosen = chosen_slots();
  std::vector<at::Tensor> rows;
  for (int64_t t = 0; t < kTokens; ++t) {
    std::vector<at::Tensor> parts;
    for (int64_t k = 0; k < kChosen; ++k) {
      const int64_t slot = chosen[t][k].item<int64_t>();
      at::Tensor x = in[0][t] * in[6][slot % kNorms];
      if (c.norm_bias) x = x + in[7][slot % kNorms];
      at::Tensor h = at::mv(in[2][slot], x);
      if (c.expert_bias) h = h + in[4][slot];
      at::Tensor gate = h.slice(0, 0, kExpertWidth), up = h.slice(0, kExpertWidth);
      if (c.activation.kind == Activation::Clamped) {
        const at::Tensor limit = at::tensor(c.activation.limit, at::kDouble);
        gate = at::minimum(gate, limit);
        up = at::maximum(at::minimum(up, limit), -limit) + 1;
        gate = gate * at::sigmoid(c.activation.alpha * gate);
      } else {
        gate = gate * at::sigmoid(gate);
      }
      at::Tensor y = at::mv(in[3][slot], gate * up);
      if (c.expert_bias) y = y + in[5][slot];
      parts.push_back(weighted ? in[1][t][k] * y : y);
    }
    rows.push_back(weighted ? parts[0] + parts[1] : at::stack(parts));
  }
  return at::stack(rows);
}

struct Errors {
  double output, gradient;
};

// Names of the inputs as in `inputs`; `changed` is flipped for the block alone.
Errors errors_of(const Case& c, at::ScalarType dtype, size_t changed = 99) {
  std::vector<at::Tensor> narrow, wide;
  for (size_t i = 0; i < inputs(c).size(); ++i) {
    const at::Tensor x = inputs(c)[i];
    const at::ScalarType own = i == 1 || (i == 0 && c.wide) ? at::kFloat : dtype;
    wide.push_back(x.defined() ? x.to(own).to(at::kDouble).requires_grad_(true) : x);
    narrow.push_back(x.defined() ? (i == changed ? x.flip(0) : x).to(own) : x);
  }
  narrow[0].requires_grad_(true);
  narrow[1].requires_grad_(true);
  Table table(c, narrow);
  const at::Tensor out = expert_block(narrow[0], narrow[1], permutation(), table.table);
  const at::Tensor wanted = plain(c, wide, true);
  const at::Tensor dout = random_tensor({kTokens, kWidth}, 77).to(dtype);
  out.backward(dout);
  wanted.backward(dout.to(at::kDouble));
  table.grads[0] = narrow[0].grad();
  table.grads[1] = narrow[1].grad();
  double worst = 0;
  for (size_t i = 0; i < wide.size(); ++i) {
    if (wide[i].defined()) worst = std::max(worst, relative_error(table.grads[i], wide[i].grad()));
  }
  return {relative_error(out.detach(), wanted.detach()), worst};
}

}  // namespace

TEST_CASE("the expert block agrees with a loop over tokens", "[peer][model]") {
  for (const Case& c : cases()) {
    INFO(c.name);
    const Errors errors = errors_of(c, at::kFloat);
    CHECK(errors.output <= tolerance::kBlock);
    CHECK(errors.gradient <= tolerance::kBlockGradient);
    const Errors narrow = errors_of(c, at::kBFloat16);
    CHECK(narrow.output <= tolerance::kBlockBFloat16);
    // The gradient jumps at a limit, and a rounding decides on which side a number stands.
    if (c.activation.kind == Activation::Silu) CHECK(narrow.gradient <= tolerance::kBlockBFloat16);
  }
}

TEST_CASE("the expert block shows every tensor", "[peer][model]") {
  for (const Case& c : cases()) {
    for (size_t i = 1; i < 8; ++i) {
      if (!inputs(c)[i].defined()) continue;
      INFO(c.name << " input " << i);
      CHECK(errors_of(c, at::kFloat, i).output > tolerance::kVisibleBlock);
    }
  }
}

TEST_CASE("rows of experts before weight and sum", "[peer][model]") {
  for (const Case& c : cases()) {
    INFO(c.name);
    std::vector<at::Tensor> narrow;
    for (const at::Tensor& x : inputs(c)) narrow.push_back(x.defined() ? x.to(at::kFloat) : x);
    const Table table(c, narrow);
    const Permutation order = permutation();
    const at::Tensor rows = expert_rows(narrow[0], order, table.table);
    const at::Tensor seen = rows.index_select(0, order.row_of.reshape({-1}).to(at::kLong))
                                .view({kTokens, kChosen, kWidth});
    CHECK(relative_error(seen, plain(c, inputs(c), false)) <= tolerance::kBlock);
    CHECK(relative_error(seen.flip(1), plain(c, inputs(c), false)) > tolerance::kVisibleBlock);
  }
}
