// Tables of rotary angles beside the frequencies that transformers 5.17 computes
// (ROPE_INIT_FUNCTIONS of modeling_rope_utils.py, printed with nine digits).
#include "support/torch_test.h"
//
#include "model/rope.h"
#include "support/tolerances.h"
#include "support/torch_compare.h"

using namespace moue;
using namespace moue::test;

namespace {

struct Case {
  std::string name;
  RopeSpec rope;
  int64_t length;
  double factor;  ///< of cosine and sine
  std::vector<double> frequencies;
};

RopeSpec spec(RopeKind kind, double theta, double factor = 1, int64_t original = 4096) {
  RopeSpec rope;
  rope.kind = kind;
  rope.theta = theta;
  rope.width = 16;
  rope.factor = factor;
  rope.original_length = original;
  return rope;
}

std::vector<Case> cases() {
  RopeSpec smooth = spec(RopeKind::Yarn, 150000, 32), cut = spec(RopeKind::Yarn, 10000, 40),
           stretched = spec(RopeKind::Long, 10000);
  smooth.truncate = false;
  smooth.attention_factor = 1.3465735902799727;
  cut.attention_factor = 1.3688879454113936;
  stretched.short_factors = {1, 1.1, 1.25, 1.5, 1.75, 2, 2.5, 3};
  stretched.long_factors = {1, 1.5, 2.5, 6, 12, 24, 40, 64};
  stretched.attention_factor = 1.1902380714238083;
  stretched.long_attention_factor = 1.25;
  return {{"plain",
           spec(RopeKind::Default, 10000),
           50,
           1,
           {1, 0.316227764, 0.1, 0.0316227786, 0.01, 0.00316227786, 0.001, 0.000316227786}},
          {"linear",
           spec(RopeKind::Linear, 10000, 4),
           50,
           1,
           {0.25, 0.079056941, 0.0250000004, 0.00790569466, 0.00249999994, 0.000790569466,
            0.000250000012, 7.90569466e-05}},
          {"yarn, smooth bounds",
           smooth,
           50,
           1.3465735902799727,
           {1, 0.225418001, 0.0508132726, 0.00679495931, 0.000456483918, 1.8188337e-05,
            4.09997847e-06, 9.24208962e-07}},
          {"yarn, rounded bounds",
           cut,
           50,
           1.3688879454113936,
           {1, 0.316227764, 0.100000001, 0.0239147246, 0.00512499968, 0.000849862176,
            2.49999994e-05, 7.90569447e-06}},
          {"short factors",
           stretched,
           4096,
           1.1902380714238083,
           {1, 0.287479758, 0.0799999982, 0.0210818499, 0.00571428565, 0.00158113893, 0.00039999999,
            0.000105409257}},
          {"long factors",
           stretched,
           4097,
           1.25,
           {1, 0.210818499, 0.0399999991, 0.00527046248, 0.000833333354, 0.000131761582,
            2.49999994e-05, 4.94105916e-06}},
          {"llama 3",
           spec(RopeKind::Llama3, 500000, 8, 8192),
           50,
           1,
           {1, 0.193922758, 0.0376060307, 0.00729266508, 0.000524846022, 3.42810235e-05,
            6.64786967e-06, 1.28917316e-06}},
          {"llama 3, short",
           spec(RopeKind::Llama3, 500, 8, 128),
           50,
           1,
           {1, 0.459863275, 0.21147424, 0.0399857163, 0.00559017016, 0.0025707141, 0.00118217699,
            0.000543639821}}};
}

// Position p of pair i: factor * cos(p f_i), and the sine.
double error(const Positions& seen, const Case& c) {
  const at::Tensor frequency = at::tensor(c.frequencies, at::kDouble);
  const at::Tensor position = at::arange(c.length, at::kDouble).unsqueeze(1);
  // Rounded as the product of two float32 numbers is.
  const at::Tensor angle = (position * frequency).to(at::kFloat).to(at::kDouble);
  return std::max(relative_error(seen.cosine, angle.cos() * c.factor),
                  relative_error(seen.sine, angle.sin() * c.factor));
}

}  // namespace

TEST_CASE("tables of angles agree with transformers", "[peer][model]") {
  for (const Case& c : cases()) {
    INFO(c.name);
    const Positions seen = make_positions(c.rope, c.length, at::kCPU);
    CHECK(seen.cosine.sizes() == at::IntArrayRef({c.length, 8}));
    CHECK(seen.cosine.scalar_type() == at::kFloat);
    // A frequency printed with nine digits is off by up to 1e-9 of itself, an angle by that times
    // the position.
    CHECK(error(seen, c) <= tolerance::kAngles * static_cast<double>(c.length));
    // Controls: another theta, another factor, the table of its neighbour.
    RopeSpec other = c.rope;
    other.theta *= 1.1;
    const double visible = 100 * tolerance::kAngles * static_cast<double>(c.length);
    CHECK(error(make_positions(other, c.length, at::kCPU), c) > visible);
    other = c.rope;
    other.attention_factor = other.long_attention_factor = 2;
    CHECK(error(make_positions(other, c.length, at::kCPU), c) > visible);
    if (c.rope.kind == RopeKind::Default) continue;
    other = c.rope;
    other.kind = RopeKind::Default;
    CHECK(error(make_positions(other, c.length, at::kCPU), c) > visible);
  }
}
