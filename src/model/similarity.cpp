// How alike experts are on a model's own tokens: linear CKA (Kornblith et al., arXiv 1905.00414),
// or how well a donor's outputs stand for an expert's where the model uses it (this project's
// score).
//
// Legend: S samples, D width, N experts of a layer, R donors within reach, L MoE layers.
#include "model/similarity.h"

#include <algorithm>
#include <memory>

#include "model/torch.h"
#include "moue/error.h"
#include "moue/log.h"

namespace moue {
namespace {

constexpr int64_t kMostWindows = 64;  // from which samples are taken

// What a MoE layer's experts were fed with, and by how much each of them counted.
struct Samples {
  at::Tensor xhat_SD;
  at::Tensor gate_SN;  // 0 where not chosen
};

// Window w of those used is window w all / windows of them.
at::Tensor spread_windows(const at::Tensor& windows_NT1) {
  const int64_t all = windows_NT1.size(0), used = std::min(all, kMostWindows);
  return windows_NT1.index_select(
      0, (at::arange(used, at::kLong) * all).div(used, "floor").to(at::kLong));
}

// Token i of S is token (i + 1/2) T / S.
at::Tensor spread_tokens(int64_t tokens, int64_t samples) {
  return ((at::arange(samples, at::kLong) * 2 + 1) * tokens).div(2 * samples, "floor");
}

at::Tensor gates_of(const MoeView& view, int64_t experts) {
  const at::Tensor& gate_TK = view.routed->gate_TK;
  return at::zeros({gate_TK.size(0), experts}, gate_TK.options())
      .scatter(1, view.routed->chosen_TK.to(at::kLong), gate_TK);
}

// Of evenly spread tokens, per MoE layer.
std::vector<Samples> sampled(Model& model, const at::Tensor& windows_NT1, int64_t batch,
                             int64_t samples) {
  const at::Tensor used = spread_windows(windows_NT1);
  const int64_t windows = used.size(0), length = used.size(1) - 1;
  const at::Tensor tokens = spread_tokens(windows * length, samples);
  const int64_t layers = model.pool().num_moe_layers();
  std::vector<std::vector<at::Tensor>> inputs(layers), gates(layers);
  for (int64_t begin = 0; begin < windows; begin += batch) {
    const int64_t rows = std::min(batch, windows - begin);
    const at::Tensor is_here =
        tokens.ge(begin * length).logical_and(tokens.lt((begin + rows) * length));
    const at::Tensor here = tokens.masked_select(is_here) - begin * length;
    Pass pass;
    pass.keep_records = false;
    pass.observer = [&](const MoeView& view) {
      const at::Tensor at = here.to(view.xhat_TD.device());
      inputs[view.moe_layer].push_back(view.xhat_TD.index_select(0, at));
      const at::Tensor gate = gates_of(view, model.pool().experts_per_layer);
      gates[view.moe_layer].push_back(gate.index_select(0, at));
    };
    model.logits(used.narrow(0, begin, rows).narrow(1, 0, length), pass);
  }
  std::vector<Samples> result;
  for (int64_t layer = 0; layer < layers; ++layer)
    result.push_back({at::cat(inputs[layer]), at::cat(gates[layer])});
  return result;
}

// What the expert gives for those inputs of the layer, behind its home's norm: float64 [S, D].
at::Tensor outputs(Model& model, int64_t moe_layer, int64_t physical, const at::Tensor& xhat_SD) {
  const InSlot in_slot(model, moe_layer, 0, physical);
  const auto whole = xhat_SD.options();
  const auto slots = static_cast<int64_t>(model.pool().slots[moe_layer].size());
  Routed routed;
  routed.chosen_TK = at::zeros({xhat_SD.size(0), 1}, whole.dtype(at::kInt));
  routed.count_S = at::zeros({slots}, whole.dtype(at::kLong));
  routed.count_S[0] = xhat_SD.size(0);
  const at::Tensor y = model.expert_outputs({moe_layer, xhat_SD, at::Tensor(), &routed})
                           .select(1, 0)
                           .to(at::kDouble);
  if (!y.isfinite().all().item<bool>()) {
    fail("measure", "expert {} of MoE layer {} gives numbers that are not finite, wanted finite",
         model.pool().home[physical].expert, model.pool().home[physical].layer);
  }
  return y;
}

// A layer's own experts, against which donors are held one by one.
class Scorer {
 public:
  virtual ~Scorer() = default;
  /// The donor's score for each own expert: float64 [N]. `scale` is a = R_l / R_home(p).
  virtual at::Tensor scores(int64_t donor, double scale) = 0;
};

class Cka : public Scorer {
 public:
  Cka(Model& model, int64_t layer, const Samples& samples)
      : model_(model), layer_(layer), samples_(samples) {
    const int64_t N = model.pool().experts_per_layer;
    std::vector<at::Tensor> own;
    for (int64_t i = 0; i < N; ++i) own.push_back(gram(layer * N + i));
    own_NSS_ = at::stack(own);
  }
  at::Tensor scores(int64_t donor, double) override {
    return at::mv(own_NSS_, gram(donor)).clamp(0, 1);
  }

 private:
  // The centred Gram matrix of an expert's outputs as a vector of length 1, float64 [S * S]; zero
  // where outputs do not vary. CKA is then a dot product.
  at::Tensor gram(int64_t physical) {
    const at::Tensor y = outputs(model_, layer_, physical, samples_.xhat_SD);
    const at::Tensor centred = y - y.mean(0, true);
    const at::Tensor k = at::mm(centred, centred.t()).reshape({-1});
    const at::Tensor norm = k.norm();
    return norm.item<double>() > 0 ? k / norm : k;
  }

  Model& model_;
  int64_t layer_;
  const Samples& samples_;
  at::Tensor own_NSS_;
};

// 1 / (1 + e), e = sum_t g_t^2 |a y_donor - y_own|^2 / sum_t g_t^2 |y_own|^2 over the tokens that
// chose the own expert: 1 where the donor gives the same, 1/2 where it gives nothing.
class Output : public Scorer {
 public:
  Output(Model& model, int64_t layer, const Samples& samples)
      : model_(model), layer_(layer), samples_(samples) {
    const int64_t N = model.pool().experts_per_layer;
    for (int64_t i = 0; i < N; ++i) {
      const at::Tensor gate = samples.gate_SN.select(1, i);
      const at::Tensor at = gate.nonzero().squeeze(1);
      Own own{at, gate.index_select(0, at).to(at::kDouble).unsqueeze(1), {}, 0};
      if (at.size(0) > 0) {
        own.y = outputs(model, layer, layer * N + i, samples.xhat_SD.index_select(0, at));
        own.squares = (own.gate * own.y).square().sum().item<double>();
      }
      own_.push_back(std::move(own));
    }
  }
  at::Tensor scores(int64_t donor, double scale) override {
    const at::Tensor y = outputs(model_, layer_, donor, samples_.xhat_SD) * scale;
    at::Tensor result =
        at::full({static_cast<int64_t>(own_.size())}, Similarity::kUnknown, at::kDouble);
    for (size_t i = 0; i < own_.size(); ++i) {
      const Own& own = own_[i];
      if (own.squares == 0) continue;
      const double squares =
          (own.gate * (y.index_select(0, own.at) - own.y)).square().sum().item<double>();
      result.data_ptr<double>()[i] = 1 / (1 + squares / own.squares);
    }
    return result;
  }

 private:
  struct Own {
    at::Tensor at, gate, y;  // of the tokens that chose it: index, [n, 1], [n, D]
    double squares = 0;
  };
  Model& model_;
  int64_t layer_;
  const Samples& samples_;
  std::vector<Own> own_;
};

std::unique_ptr<Scorer> scorer(const std::string& kind, Model& model, int64_t layer,
                               const Samples& samples) {
  if (kind == "cka") return std::make_unique<Cka>(model, layer, samples);
  return std::make_unique<Output>(model, layer, samples);
}

// The layer's own experts with every donor within reach: float64 [N, R].
at::Tensor compare_layer(Model& model, const Statistics& measured, int64_t layer,
                         const CompareOptions& options, const Samples& samples) {
  const int64_t N = model.pool().experts_per_layer, L = model.pool().num_moe_layers();
  const int64_t reach = options.reach;
  const std::unique_ptr<Scorer> scores = scorer(options.kind, model, layer, samples);
  at::Tensor all = at::full({N, (2 * reach + 1) * N}, Similarity::kUnknown, at::kDouble);
  for (int64_t other = std::max<int64_t>(0, layer - reach); other < L && other <= layer + reach;
       ++other) {
    if (other == layer) continue;
    const double scale = measured.output_rms[layer] / measured.output_rms[other];
    for (int64_t e = 0; e < N; ++e) {
      all.select(1, (other - layer + reach) * N + e).copy_(scores->scores(other * N + e, scale));
    }
  }
  return all;
}

}  // namespace

InSlot::InSlot(Model& model, int64_t moe_layer, int64_t slot, int64_t physical, double scale)
    : model_(model), moe_layer_(moe_layer), slot_(slot), own_(model.pool().slots[moe_layer][slot]) {
  model_.set_slot(moe_layer, slot, physical, scale);
}

InSlot::~InSlot() { model_.set_slot(moe_layer_, slot_, own_, 1); }

Likeness compare_experts(Model& model, const Statistics& measured, const at::Tensor& windows_NT1,
                         int64_t batch, const CompareOptions& asked) {
  const at::NoGradGuard no_grad;
  const int64_t N = model.pool().experts_per_layer, L = model.pool().num_moe_layers();
  const int64_t most = std::min(windows_NT1.size(0), kMostWindows) * (windows_NT1.size(1) - 1);
  CompareOptions options = asked;
  options.reach = std::min(asked.reach, std::max<int64_t>(1, L - 1));
  options.samples = std::min(asked.samples, most);
  const std::vector<Samples> samples = sampled(model, windows_NT1, batch, options.samples);
  Likeness result{{options.kind, "tokens", options.samples, options.reach, {}}, {}};
  for (int64_t layer = 0; layer < L; ++layer) {
    const at::Tensor scores = compare_layer(model, measured, layer, options, samples[layer]);
    const at::Tensor best = std::get<0>(scores.max(0));
    std::vector<double>& score = result.similarity.score.emplace_back(L * N, Similarity::kUnknown);
    for (int64_t r = 0; r < best.numel(); ++r) {
      const int64_t physical = (layer - options.reach) * N + r;
      if (physical >= 0 && physical < L * N) score[physical] = best.data_ptr<double>()[r];
    }
    result.score_NR.push_back(scores);
    log_progress({"measure", static_cast<double>(layer + 1), static_cast<double>(L), "layers",
                  "similarity"});
  }
  return result;
}

}  // namespace moue
