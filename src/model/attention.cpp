// Attention of a layer: fetches the weights of its kind.
#include "model/attention.h"

#include "model/attention_experts.h"
#include "model/attention_grouped.h"
#include "model/attention_latent.h"
#include "model/attention_linear.h"
#include "model/torch.h"

namespace moue {
namespace {

GroupedWeights grouped_weights(int64_t layer, Weights& weights) {
  const auto get = [&](Weight weight) { return weights.get(weight, layer); };
  return {get(Weight::Qkv),
          get(Weight::QkvBias),
          get(Weight::AttentionOutput),
          get(Weight::AttentionOutputBias),
          get(Weight::QueryNorm),
          get(Weight::KeyNorm),
          get(Weight::Sinks)};
}

LatentWeights latent_weights(int64_t layer, Weights& weights) {
  const auto get = [&](Weight weight) { return weights.get(weight, layer); };
  return {get(Weight::QueryDown),        get(Weight::QueryDownBias),
          get(Weight::QueryDownNorm),    get(Weight::QueryUp),
          get(Weight::KeyValueDown),     get(Weight::KeyValueDownBias),
          get(Weight::KeyValueDownNorm), get(Weight::KeyValueUp),
          get(Weight::AttentionOutput),  get(Weight::AttentionOutputBias)};
}

LinearWeights linear_weights(int64_t layer, Weights& weights) {
  return {weights.get(Weight::LinearInput, layer), weights.get(Weight::LinearNorm, layer),
          weights.get(Weight::LinearGate, layer), weights.get(Weight::LinearOutput, layer)};
}

AttentionExpertsWeights experts_weights(int64_t layer, const ModelSpec& spec, Weights& weights) {
  const int64_t E = spec.experts, D = spec.width,
                queries = spec.attention.kv_heads * spec.attention.head_width;
  return {weights.get(Weight::AttentionRouter, layer),
          weights.get(Weight::AttentionExpertInput, layer).view({E, queries, D}),
          weights.get(Weight::AttentionExpertOutput, layer).view({E, D, queries}),
          weights.get(Weight::AttentionExpertsBias, layer), weights.get(Weight::KeyValue, layer)};
}

}  // namespace

at::Tensor attention(const at::Tensor& x_TD, int64_t batch, int64_t layer, const ModelSpec& spec,
                     const Positions& positions, Weights& weights) {
  const AttentionSpec& a = spec.attention;
  switch (a.kind(layer)) {
    case AttentionKind::Grouped:
      return attention_grouped(x_TD, batch, a, layer, spec.norm.eps, positions,
                               grouped_weights(layer, weights));
    case AttentionKind::Latent:
      return attention_latent(x_TD, batch, a, layer, spec.norm.inner_eps, positions,
                              latent_weights(layer, weights));
    case AttentionKind::Linear:
      return attention_linear(x_TD, batch, a,
                              decay_rates(a.heads, layer, spec.layers).to(x_TD.device()),
                              spec.norm.inner_eps, linear_weights(layer, weights));
    case AttentionKind::Experts:
      return attention_experts(x_TD, batch, a, layer, spec.experts_per_token, positions,
                               experts_weights(layer, spec, weights));
  }
  TORCH_CHECK(false, "unknown kind of attention");
}

}  // namespace moue
