// The teacher of a distillation.
#include "train/teacher.h"

#include <ATen/ATen.h>

#include <unordered_map>

#include "moue/error.h"
#include "moue/log.h"
#include "moue/plan.h"

namespace moue {

std::unique_ptr<Model> open_teacher(const Checkpoint& source, Model& student,
                                    const TrainOptions& options) {
  if (options.distill == 0) return nullptr;
  const bool itself = options.distill_from.empty();
  const Checkpoint from = itself ? source : open_checkpoint(options.distill_from);
  const int64_t vocabulary = family_of(from.config()).spec(from.config()).vocabulary;
  if (vocabulary != student.spec().vocabulary)
    fail("train",
         "distill_from {} has a vocabulary of {}, the model {}; name one with its tokenizer",
         from.directory().string(), vocabulary, student.spec().vocabulary);
  std::unordered_map<std::string, at::Tensor> frozen;
  for (const Parameter& parameter : student.parameters()) {
    if (!parameter.frozen.empty() && num_trained(parameter) == 0)
      frozen[parameter.name] = parameter.value.detach();
  }
  uint64_t once = 0;
  ModelOptions how{scalar_type(options.dtype), device_of(options.device)};
  how.shared = [&](const std::string& name, const at::Tensor& loaded) {
    const auto found = frozen.find(name);
    const bool same = found != frozen.end() && found->second.sizes() == loaded.sizes() &&
                      found->second.scalar_type() == loaded.scalar_type() &&
                      found->second.equal(loaded);
    if (same) once += loaded.nbytes();
    return same ? found->second : at::Tensor();
  };
  std::unique_ptr<Model> teacher = Model::open(from, how);
  log_line("train", "teacher {}: loaded, {:.1f} MiB of it shared with what is frozen",
           from.directory().string(), static_cast<double>(once) / (1 << 20));
  return teacher;
}

std::string teacher_identity(const TrainOptions& options) {
  if (options.distill == 0) return "none";
  if (options.distill_from.empty()) return "itself";
  const Checkpoint from = open_checkpoint(options.distill_from);
  return fingerprint(from, family_of(from.config())).substr(0, 12);
}

}  // namespace moue
