// Linear CKA of experts on a model's own tokens (Kornblith et al., arXiv 1905.00414).
//
// Legend: S samples, D width, N experts of a layer, R donors within reach, L MoE layers.
#include "model/similarity.h"

#include <algorithm>

#include "core/philox.h"
#include "model/torch.h"
#include "moue/error.h"
#include "moue/log.h"

namespace moue {
namespace {

constexpr int64_t kMostWindows = 64;  // from which samples are taken

// Another expert in a slot, until the end of the scope.
class InSlot {
 public:
  InSlot(Model& model, int64_t moe_layer, int64_t slot, int64_t physical, double scale = 1)
      : model_(model),
        moe_layer_(moe_layer),
        slot_(slot),
        own_(model.pool().slots[moe_layer][slot]) {
    model_.set_slot(moe_layer, slot, physical, scale);
  }
  ~InSlot() { model_.set_slot(moe_layer_, slot_, own_, 1); }
  InSlot(const InSlot&) = delete;
  InSlot& operator=(const InSlot&) = delete;

 private:
  Model& model_;
  int64_t moe_layer_, slot_, own_;
};

// The block inputs of evenly spread tokens, per MoE layer: [S, D].
std::vector<at::Tensor> sampled_inputs(Model& model, const at::Tensor& windows_NT1, int64_t batch,
                                       int64_t samples) {
  const int64_t all = windows_NT1.size(0), length = windows_NT1.size(1) - 1;
  const int64_t windows = std::min(all, kMostWindows);
  // Window w of those used is window w all / windows; token i of S is token (i + 1/2) T / S.
  const at::Tensor used = windows_NT1.index_select(
      0, (at::arange(windows, at::kLong) * all).div(windows, "floor").to(at::kLong));
  const at::Tensor tokens =
      ((at::arange(samples, at::kLong) * 2 + 1) * (windows * length)).div(2 * samples, "floor");
  std::vector<std::vector<at::Tensor>> parts(model.pool().num_moe_layers());
  for (int64_t begin = 0; begin < windows; begin += batch) {
    const int64_t rows = std::min(batch, windows - begin);
    const at::Tensor here =
        tokens.masked_select(
            tokens.ge(begin * length).logical_and(tokens.lt((begin + rows) * length))) -
        begin * length;
    Pass pass;
    pass.keep_records = false;
    pass.observer = [&](const MoeView& view) {
      parts[view.moe_layer].push_back(view.xhat_TD.index_select(0, here.to(view.xhat_TD.device())));
    };
    model.logits(used.narrow(0, begin, rows).narrow(1, 0, length), pass);
  }
  std::vector<at::Tensor> inputs;
  for (const auto& layer : parts) inputs.push_back(at::cat(layer));
  return inputs;
}

// The centred Gram matrix of an expert's outputs as a vector of length 1, float64 [S * S]; zero
// where outputs do not vary. CKA is then a dot product.
at::Tensor gram(Model& model, int64_t moe_layer, int64_t physical, const at::Tensor& xhat_SD) {
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
  const at::Tensor centred = y - y.mean(0, true);
  const at::Tensor k = at::mm(centred, centred.t()).reshape({-1});
  const at::Tensor norm = k.norm();
  return norm.item<double>() > 0 ? k / norm : k;
}

// CKA of the layer's own experts with every donor within reach: float64 [N, R].
at::Tensor compare_layer(Model& model, int64_t layer, int64_t reach, const at::Tensor& xhat_SD) {
  const int64_t N = model.pool().experts_per_layer, L = model.pool().num_moe_layers();
  std::vector<at::Tensor> own;
  for (int64_t i = 0; i < N; ++i) own.push_back(gram(model, layer, layer * N + i, xhat_SD));
  const at::Tensor own_NSS = at::stack(own);
  at::Tensor cka = at::full({N, (2 * reach + 1) * N}, Similarity::kUnknown, at::kDouble);
  for (int64_t other = std::max<int64_t>(0, layer - reach); other < L && other <= layer + reach;
       ++other) {
    for (int64_t e = 0; e < N && other != layer; ++e) {
      const at::Tensor donor = gram(model, layer, other * N + e, xhat_SD);
      cka.select(1, (other - layer + reach) * N + e).copy_(at::mv(own_NSS, donor).clamp(0, 1));
    }
  }
  return cka;
}

// One trial's words, the same on every machine.
PhiloxBlock draw(int64_t trial, int64_t attempt) {
  return philox(0, {static_cast<uint32_t>(trial), static_cast<uint32_t>(attempt), 0, 0});
}

Home draw_replaced(const std::vector<std::vector<double>>& load, int64_t trial) {
  constexpr int64_t kAttempts = 1000;  // most experts have some load
  Home home;
  for (int64_t attempt = 0; attempt < kAttempts; ++attempt) {
    const PhiloxBlock words = draw(trial, attempt);
    home.layer = static_cast<int32_t>(words[0] % load.size());
    home.expert = static_cast<int32_t>(words[1] % load[home.layer].size());
    if (load[home.layer][home.expert] > 0) break;
  }
  return home;
}

}  // namespace

Likeness compare_experts(Model& model, const at::Tensor& windows_NT1, int64_t batch, int64_t reach,
                         int64_t samples) {
  const at::NoGradGuard no_grad;
  const int64_t N = model.pool().experts_per_layer, L = model.pool().num_moe_layers();
  const int64_t most = std::min(windows_NT1.size(0), kMostWindows) * (windows_NT1.size(1) - 1);
  reach = std::min(reach, std::max<int64_t>(1, L - 1));
  samples = std::min(samples, most);
  const std::vector<at::Tensor> inputs = sampled_inputs(model, windows_NT1, batch, samples);
  Likeness result{{"tokens", samples, reach, {}}, {}};
  for (int64_t layer = 0; layer < L; ++layer) {
    const at::Tensor cka = compare_layer(model, layer, reach, inputs[layer]);
    const at::Tensor best = std::get<0>(cka.max(0));
    std::vector<double>& score = result.similarity.score.emplace_back(L * N, Similarity::kUnknown);
    for (int64_t r = 0; r < best.numel(); ++r) {
      const int64_t physical = (layer - reach) * N + r;
      if (physical >= 0 && physical < L * N) score[physical] = best.data_ptr<double>()[r];
    }
    result.cka_NR.push_back(cka);
    log_progress({"measure", static_cast<double>(layer + 1), static_cast<double>(L), "layers",
                  "similarity"});
  }
  return result;
}

std::vector<Replacement> try_replacements(Model& model, const Likeness& likeness,
                                          const Statistics& measured, const at::Tensor& windows_NT1,
                                          int64_t batch, int64_t trials) {
  const int64_t N = model.pool().experts_per_layer, reach = likeness.similarity.reach;
  std::vector<Replacement> result;
  for (int64_t trial = 0; trial < trials; ++trial) {
    Replacement r;
    r.replaced = draw_replaced(measured.load, trial);
    const int64_t layer = r.replaced.layer;
    const at::Tensor cka = likeness.cka_NR[layer][r.replaced.expert].contiguous();
    const double* scores = cka.data_ptr<double>();
    std::vector<int64_t> donors;  // best first, ties by lower number
    for (int64_t i = 0; i < cka.numel(); ++i) {
      if (scores[i] != Similarity::kUnknown) donors.push_back(i);
    }
    if (donors.size() < 2) {
      fail("measure", "MoE layer {} has {} donors within reach, wanted two to compare", layer,
           donors.size());
    }
    std::stable_sort(donors.begin(), donors.end(),
                     [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
    const int64_t best = donors[0], random = donors[1 + draw(trial, -1)[2] % (donors.size() - 1)];
    const auto home_of = [&](int64_t i) {
      return Home{static_cast<int32_t>(layer - reach + i / N), static_cast<int32_t>(i % N)};
    };
    const auto loss_with = [&](int64_t i) {
      const double scale = measured.output_rms[layer] / measured.output_rms[home_of(i).layer];
      const InSlot in_slot(model, layer, r.replaced.expert, (layer - reach) * N + i, scale);
      return evaluate(model, windows_NT1, batch).loss;
    };
    r.best = home_of(best);
    r.random = home_of(random);
    r.best_score = scores[best];
    r.random_score = scores[random];
    r.best_loss = loss_with(best);
    r.random_loss = loss_with(random);
    result.push_back(r);
    log_progress({"measure", static_cast<double>(trial + 1), static_cast<double>(trials), "trials",
                  "replacements"});
  }
  return result;
}

}  // namespace moue
