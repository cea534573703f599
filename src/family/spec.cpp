// Parts of a spec that follow from others.
#include "moue/spec.h"

#include "moue/family.h"

#include <algorithm>

namespace moue {

int64_t ModelSpec::num_moe_layers() const { return std::count(moe.begin(), moe.end(), true); }

std::vector<int64_t> ModelSpec::moe_layers() const {
  std::vector<int64_t> result;
  for (size_t layer = 0; layer < moe.size(); ++layer) {
    if (moe[layer]) result.push_back(static_cast<int64_t>(layer));
  }
  return result;
}

Geometry geometry_of(const ModelSpec& spec) {
  const AttentionSpec& a = spec.attention;
  std::vector<bool> linear(spec.layers);
  for (int64_t layer = 0; layer < spec.layers; ++layer)
    linear[layer] = a.kind(layer) == AttentionKind::Linear;
  return {.vocabulary = spec.vocabulary,
          .width = spec.width,
          .heads = a.heads,
          .kv_heads = a.kv_heads,
          .head_width = a.head_width,
          .expert_width = spec.expert_width,
          .dense_width = spec.dense_width,
          .shared_width = spec.shared_width,
          .experts = spec.experts,
          .experts_per_token = spec.experts_per_token,
          .query_rank = a.latent.query_rank,
          .rank = a.latent.rank,
          .plain_width = a.latent.plain_width,
          .rope_width = a.latent.rope_width,
          .value_width = a.latent.value_width,
          .block = a.block,
          .moe = spec.moe,
          .linear = std::move(linear),
          .extra_layers = spec.extra_layers};
}

}  // namespace moue
