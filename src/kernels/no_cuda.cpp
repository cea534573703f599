// The CUDA entries of a build without CUDA: each says how to get it.
#include "kernels/adamw.h"
#include "kernels/cross_entropy.h"
#include "kernels/distillation.h"
#include "kernels/glu.h"
#include "kernels/permute.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/router.h"
#include "kernels/trajectory.h"
#include "moue/error.h"

namespace moue::kernels::cuda {
namespace {

[[noreturn]] void refuse(const char* kernel) {
  fail("kernels",
       "{} was asked for on CUDA, this build has no CUDA kernels; install nvcc 13, configure with "
       "-DMOUE_CUDA=ON (preset full) and build again, or choose device = \"cpu\"",
       kernel);
}

}  // namespace

void adamw(const AdamwArgs&, void*) { refuse("adamw"); }
void sum_of_squares(const float*, int64_t, double*, double*, void*) { refuse("sum_of_squares"); }
void cross_entropy(const CrossEntropy&, void*) { refuse("cross_entropy"); }
void distillation(const Distillation&, void*) { refuse("distillation"); }
void permute(const Permute&, void*) { refuse("permute"); }
void gather_rows(const GatherRows&, void*) { refuse("gather_rows"); }
void combine_rows(const CombineRows&, void*) { refuse("combine_rows"); }
void gain_backward(const GainBackward&, void*) { refuse("gain_backward"); }
void to_rows(const float*, const int32_t*, float*, int64_t, void*) { refuse("to_rows"); }
void from_rows(const float*, const int32_t*, float*, int64_t, void*) { refuse("from_rows"); }
void rms_norm_forward(const RmsNormForward&, void*) { refuse("rms_norm_forward"); }
void rms_norm_backward(const RmsNormBackward&, void*) { refuse("rms_norm_backward"); }
void rope(const Rope&, void*) { refuse("rope"); }
void router_forward(const RouterForward&, void*) { refuse("router_forward"); }
void router_backward(const RouterBackward&, void*) { refuse("router_backward"); }
void glu_forward(const GluForward&, void*) { refuse("glu_forward"); }
void glu_backward(const GluBackward&, void*) { refuse("glu_backward"); }
void trajectory_read(const TrajectoryRead&, void*) { refuse("trajectory_read"); }
void trajectory_read_backward(const TrajectoryReadBackward&, void*) {
  refuse("trajectory_read_backward");
}

}  // namespace moue::kernels::cuda
