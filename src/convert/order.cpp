// The order in which a whole model is written: what is used together lies together.
#include "convert/content.h"

#include <algorithm>
#include <tuple>

namespace moue {

namespace {

enum Section : int { kEmbedding, kLayers, kBehind, kUnused, kExperts, kPool };
enum Room : int { kBlock, kRouter, kRouted, kShared, kDense };

bool is_routed(Role role) {
  return role >= Role::ExpertGate && role <= Role::ExpertGateUpBiasPairs;
}

Room room_of(Role role) {
  if (role == Role::Router || role == Role::RouterBias || role == Role::RouterCorrection)
    return kRouter;
  if (is_routed(role)) return kRouted;
  if (role >= Role::MlpBias && role <= Role::SharedMix) return kShared;
  if (role >= Role::DenseGate && role <= Role::DenseDown) return kDense;
  return kBlock;
}

// Section, layer, room, expert, role; then a tensor before its scales.
using Place = std::tuple<int, int64_t, int, int64_t, int, bool>;

bool is_scale(const Claims& claims, uint32_t tensor) {
  const Row* row = claims.of_tensors()[tensor].row;
  return row != nullptr && row->role == Role::Scale;
}

Place place_of(const Claim& claim, std::string_view name, bool scale) {
  if (claim.row == nullptr) return {is_expert_tensor(name) ? kExperts : kPool, 0, 0, 0, 0, scale};
  const Role role = claim.row->role;
  if (claim.layer < 0) {
    const Section section = role == Role::Embedding ? kEmbedding
                            : role == Role::Ignored ? kUnused
                                                    : kBehind;
    return {section, 0, 0, 0, static_cast<int>(role), scale};
  }
  return {kLayers, claim.layer, room_of(role), claim.expert, static_cast<int>(role), scale};
}

// The tensor whose blocks this one scales: NAME of NAME_scale_inv, NAME_blocks of NAME_scales.
const TensorInfo* scaled_by(const Checkpoint& source, std::string_view name) {
  const std::string stem(name.substr(0, name.rfind('_')));
  if (const TensorInfo* blocks = source.find(stem + "_blocks")) return blocks;
  return source.find(stem.substr(0, stem.rfind('_')));
}

}  // namespace

const Claim& claim_of(const Checkpoint& source, const Claims& claims, uint32_t tensor) {
  const Claim& claim = claims.of_tensors()[tensor];
  if (claim.row == nullptr || claim.row->role != Role::Scale) return claim;
  const TensorInfo* matrix = scaled_by(source, source.tensors()[tensor].name);
  return matrix ? claims.of_tensors()[static_cast<size_t>(matrix - source.tensors().data())]
                : claim;
}

std::vector<uint32_t> reading_order(const Checkpoint& source, const Claims& claims) {
  std::vector<std::pair<Place, uint32_t>> places;
  for (uint32_t i = 0; i < source.tensors().size(); ++i) {
    const std::string& name = source.tensors()[i].name;
    places.emplace_back(place_of(claim_of(source, claims, i), name, is_scale(claims, i)), i);
  }
  std::ranges::sort(places);
  std::vector<uint32_t> order;
  for (const auto& [place, tensor] : places) order.push_back(tensor);
  return order;
}

}  // namespace moue
