// What the kernels say where CUDA was not built, or finds no device.
#include "support/kernel_test.h"
//
#include "kernels/adamw.h"
#include "kernels/glu.h"
#include "kernels/permute.h"
#include "moue/error.h"

using namespace moue;
using namespace moue::test;
using Catch::Matchers::Contains;

TEST_CASE("CUDA that is not there is refused with what to do", "[unit][kernels]") {
  float memory[8] = {};
  double partial[1] = {}, result[1] = {};
  const kernels::GluForward args{Element::Float32, {}, memory, nullptr, memory + 4, 1, 2};
  if (device::state() == device::State::NotBuilt) {
    CHECK_THROWS_AS(kernels::glu_forward(args, kGpu), Error);
    CHECK_THROWS_WITH(kernels::glu_forward(args, kGpu),
                      Contains("[kernels] glu_forward") && Contains("MOUE_CUDA") &&
                          Contains("nvcc") && Contains("device = \"cpu\""));
    CHECK_THROWS_WITH(kernels::sum_of_squares(memory, 8, partial, result, kGpu),
                      Contains("sum_of_squares"));
    CHECK_THROWS_WITH(kernels::permute({}, kGpu), Contains("permute"));
  } else if (device::state() == device::State::NoDevice) {
    CHECK_THROWS_AS(kernels::glu_forward(args, kGpu), Error);
    CHECK_THROWS_WITH(kernels::glu_forward(args, kGpu),
                      Contains("[kernels] glu_forward launch") && Contains("nvidia-smi"));
    CHECK_THROWS_WITH(kernels::sum_of_squares(memory, 8, partial, result, kGpu),
                      Contains("sum_of_squares launch"));
  } else {
    CHECK_THROWS_WITH(device::allocate(size_t{1} << 62), Contains("micro_batch"));
  }
  CHECK_NOTHROW(kernels::glu_forward(args, kCpu));
}
