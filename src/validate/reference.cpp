// G2: the result against logits recorded elsewhere.
#include <fmt/format.h>

#include "model/torch.h"
#include "moue/error.h"
#include "validate/model.h"

namespace moue {
namespace {

// bfloat16 keeps 8 bits: a few roundings a layer, each 2^-8 of the value, against one float32
// recording.
constexpr double kBfloat16Bound = 5e-2;

struct Recorded {
  at::Tensor tokens, logits;
};

Recorded read_reference(const std::filesystem::path& path, int64_t vocabulary) {
  const SafetensorsFile file(path);
  const TensorInfo &tokens = file.at("tokens"), &logits = file.at("logits");
  const bool fits = tokens.shape.size() == 2 && tokens.dtype == Dtype::I64 &&
                    logits.shape.size() == 3 && logits.shape[0] == tokens.shape[0] &&
                    logits.shape[1] == tokens.shape[1] && logits.shape[2] == vocabulary;
  if (!fits) {
    fail("validate", "{} has tokens {} {} and logits {}, wanted I64 [B, T] and [B, T, {}]",
         path.string(), dtype_name(tokens.dtype), shape_text(tokens.shape),
         shape_text(logits.shape), vocabulary);
  }
  at::Tensor ids = at::empty(tokens.shape, at::kLong);
  file.read(tokens, 0, {static_cast<std::byte*>(ids.data_ptr()), tokens.bytes});
  if (ids.numel() == 0 || ids.min().item<int64_t>() < 0 ||
      ids.max().item<int64_t>() >= vocabulary) {
    fail("validate", "{} has tokens outside 0..{}, or none", path.string(), vocabulary - 1);
  }
  return {ids, at::tensor(file.values("logits"), at::kDouble).view(logits.shape)};
}

double share_of_top(const at::Tensor& a, const at::Tensor& b, int64_t k) {
  const at::Tensor best = a.argmax(-1, true), among = std::get<1>(b.topk(k, -1));
  return best.eq(among).any(-1).to(at::kDouble).mean().item<double>();
}

}  // namespace

void reference_gate(const GateRun& run, Report& report) {
  if (run.options.reference.empty()) {
    report.checks.push_back(
        {"G2 reference", Outcome::NotApplicable, {}, {}, "not applicable: no --reference"});
    return;
  }
  const at::NoGradGuard no_grad;
  const auto model = Model::open(run.result, run.how);
  const Recorded reference = read_reference(run.options.reference, model->spec().vocabulary);
  Pass pass;
  const at::Tensor seen = model->logits(reference.tokens, pass).cpu().to(at::kDouble),
                   &wanted = reference.logits;
  const double error =
      (seen - wanted).abs().max().item<double>() / wanted.abs().max().item<double>();
  const double bound = run.how.dtype == at::kFloat
                           ? run.options.max_logit_error
                           : std::max(kBfloat16Bound, run.options.max_logit_error);
  const at::Tensor p = wanted.log_softmax(-1), q = seen.log_softmax(-1);
  const double kl = (p.exp() * (p - q)).sum(-1).mean().item<double>();
  const double cosine = at::cosine_similarity(seen, wanted, -1).min().item<double>();
  report.checks.push_back({"G2 logits", error <= bound ? Outcome::Pass : Outcome::Fail, error,
                           bound, "largest difference over the largest logit"});
  report.facts.push_back({"reference_kl", kl, "nats"});
  report.facts.push_back({"reference_smallest_cosine", cosine, ""});
  report.facts.push_back({"reference_top1", share_of_top(wanted, seen, 1), ""});
  report.facts.push_back(
      {"reference_top5", share_of_top(wanted, seen, std::min<int64_t>(5, seen.size(-1))), ""});
}

}  // namespace moue
