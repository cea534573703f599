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
  return {.vocabulary = spec.vocabulary,
          .width = spec.width,
          .heads = spec.attention.heads,
          .kv_heads = spec.attention.kv_heads,
          .head_width = spec.attention.head_width,
          .expert_width = spec.expert_width,
          .dense_width = spec.dense_width,
          .experts = spec.experts,
          .experts_per_token = spec.experts_per_token,
          .moe = spec.moe};
}

}  // namespace moue
