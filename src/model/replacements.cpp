// What it costs to put a donor in the place of an expert: trials drawn by number.
#include <algorithm>

#include "core/philox.h"
#include "model/similarity.h"
#include "model/torch.h"
#include "moue/error.h"
#include "moue/log.h"

namespace moue {
namespace {

// One trial's words, the same on every machine.
PhiloxBlock draw(int64_t trial, int64_t attempt) {
  return philox(0, {static_cast<uint32_t>(trial), static_cast<uint32_t>(attempt), 0, 0});
}

// One with some load, and with scores.
Home draw_replaced(const std::vector<std::vector<double>>& load,
                   const std::vector<at::Tensor>& score_NR, int64_t trial) {
  constexpr int64_t kAttempts = 1000;  // most experts are used
  Home home;
  for (int64_t attempt = 0; attempt < kAttempts; ++attempt) {
    const PhiloxBlock words = draw(trial, attempt);
    home.layer = static_cast<int32_t>(words[0] % load.size());
    home.expert = static_cast<int32_t>(words[1] % load[home.layer].size());
    const at::Tensor best = score_NR[home.layer][home.expert].max();
    if (load[home.layer][home.expert] > 0 && best.item<double>() != Similarity::kUnknown) break;
  }
  return home;
}

}  // namespace

std::vector<Replacement> try_replacements(Model& model, const Likeness& likeness,
                                          const Statistics& measured, const at::Tensor& windows_NT1,
                                          int64_t batch, int64_t trials) {
  const int64_t N = model.pool().experts_per_layer, reach = likeness.similarity.reach;
  std::vector<Replacement> result;
  for (int64_t trial = 0; trial < trials; ++trial) {
    Replacement r;
    r.replaced = draw_replaced(measured.load, likeness.score_NR, trial);
    const int64_t layer = r.replaced.layer;
    const at::Tensor of_donors = likeness.score_NR[layer][r.replaced.expert].contiguous();
    const double* scores = of_donors.data_ptr<double>();
    std::vector<int64_t> donors;  // best first, ties by lower number
    for (int64_t i = 0; i < of_donors.numel(); ++i) {
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
