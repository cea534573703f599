// train() of libmoue.so: hands over to the part that needs LibTorch.
#include "moue/train.h"

#include "core/torch_verbs.h"

namespace moue {

Report train(const std::filesystem::path& model, const std::filesystem::path& out,
             const TrainOptions& options) {
  return torch_verbs().train(model, out, options);
}

Report estimate_training(const Checkpoint& model, const std::filesystem::path& out,
                         const TrainOptions& options) {
  return torch_verbs().estimate_training(model, out, options);
}

}  // namespace moue
