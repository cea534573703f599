// The one function libmoue_torch.so exports: its verbs.
#include "core/torch_verbs.h"
#include "measure/measure.h"
#include "train/dry_run.h"
#include "train/loop.h"
#include "validate/model.h"

extern "C" const moue::TorchVerbs* moue_torch_verbs() {
  static const moue::TorchVerbs verbs{moue::measure_model, moue::train_model, moue::estimate_run,
                                      moue::validate_model};
  return &verbs;
}
