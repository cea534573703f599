// measure() of libmoue.so: hands over to the part that needs LibTorch.
#include "moue/measure.h"

#include "core/torch_verbs.h"

namespace moue {

Statistics measure(const Checkpoint& source, const Plan* plan, const MeasureOptions& options) {
  return torch_verbs().measure(source, plan, options);
}

}  // namespace moue
