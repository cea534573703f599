// Family: what each tensor of an architecture is, how it computes; one file in converters/.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "moue/config.h"
#include "moue/spec.h"

namespace moue {

class Checkpoint;
struct TensorInfo;

/// What a tensor is for. `Ignored` is claimed, listed and not used by the model.
enum class Role : uint8_t {
  Embedding,
  OutputHead,
  FinalNorm,
  AttentionNorm,
  MlpNorm,
  Query,
  Key,
  Value,
  AttentionOutput,
  QueryBias,
  KeyBias,
  ValueBias,
  AttentionOutputBias,
  QueryNorm,
  KeyNorm,
  Router,
  ExpertGate,
  ExpertUp,
  ExpertDown,
  DenseGate,
  DenseUp,
  DenseDown,
  Ignored
};
std::string_view role_name(Role role);

enum class Layers : uint8_t { None, All, Moe, Dense };  ///< in which layers a row with "{L}" stands

/// Sizes behind the letters of a Row's shape, and which layers are routed.
struct Geometry {
  int64_t vocabulary = 0;         ///< V
  int64_t width = 0;              ///< D
  int64_t heads = 0;              ///< H
  int64_t kv_heads = 0;           ///< G
  int64_t head_width = 0;         ///< A
  int64_t expert_width = 0;       ///< F
  int64_t dense_width = 0;        ///< I
  int64_t experts = 0;            ///< E
  int64_t experts_per_token = 0;  ///< K
  std::vector<bool> moe = {};     ///< per layer; its size is the number of layers
};

struct Row {
  std::string_view name;  ///< "{L}" is the layer, "{E}" the routed expert
  Role role;
  std::string_view shape;  ///< letters of Geometry, outermost first: "F D"; products "H*A D"
  Layers layers = Layers::None;
  /// May be missing. An output head is needed all the same unless the spec ties it; a bias row
  /// stands only where the spec has that bias, and then is needed.
  bool optional = false;
};

struct Family {
  std::string_view name = {};  ///< its file in converters/, filled in by the table
  /// config.json "architectures" entries it answers to.
  std::vector<std::string_view> architectures;
  Geometry (*geometry)(const Config& config) = nullptr;
  ModelSpec (*spec)(const Config& config) = nullptr;
  std::vector<Row> tensors;
};

/// Every family of converters/, sorted by name.
const std::vector<Family>& families();

/// The family of a source or MoUE config (by moue.base_architectures there). Throws Error listing
/// what is known.
const Family& family_of(const Config& config);

/// Which row a tensor belongs to; layer counts all layers from 0; -1 where it does not apply.
struct Claim {
  const Row* row = nullptr;
  int64_t layer = -1;
  int64_t expert = -1;
};

/// A checkpoint whose every tensor has been recognised.
class Claims {
 public:
  /// The tensor with this role, or nullptr where an optional one is absent.
  const TensorInfo* find(Role role, int64_t layer = -1, int64_t expert = -1) const;
  const TensorInfo& at(Role role, int64_t layer = -1, int64_t expert = -1) const;
  /// The claim of checkpoint.tensors()[i]; row == nullptr for tensors under "moue.".
  const std::vector<Claim>& of_tensors() const { return claims_; }

 private:
  friend Claims claim(const Checkpoint&, const Family&);
  static uint64_t key(Role role, int64_t layer, int64_t expert);
  std::vector<Claim> claims_;
  std::vector<std::pair<uint64_t, const TensorInfo*>> index_;  // sorted by key
};

/// Matches rows and tensors both ways. Throws Error listing all tensors without a row, all required
/// rows without a tensor and all shapes that disagree with config.json. Tensors under "moue." are
/// left to Pool where the config has its block. The checkpoint must outlive the result.
Claims claim(const Checkpoint& checkpoint, const Family& family);

/// Sizes and routed layers of a spec: what most families' geometry is.
Geometry geometry_of(const ModelSpec& spec);

/// Expands a row's name: expand_name("layers.{L}.experts.{E}", 3, 1) is "layers.3.experts.1".
std::string expand_name(std::string_view pattern, int64_t layer, int64_t expert);
/// Expands a row's shape: "A/2", "H*A D". Throws std::logic_error for a letter the legend lacks.
std::vector<int64_t> expand_shape(std::string_view shape, const Geometry& geometry);

/// What the files in converters/ share in reading config.json. Each refuses, naming file, key and
/// value, what no part of moue computes.
namespace converters {

int64_t size(const Config& config, Config::Keys keys);  ///< 1 to 2^24
int64_t size(const Config& config, Config::Keys keys, int64_t fallback);
int64_t layers(const Config& config);   ///< num_hidden_layers, 1 to 65536
int64_t experts(const Config& config);  ///< num_experts under any of its names, 1 to 65536
/// Rotation of halves, unscaled, over the whole head; theta under any of its names.
RopeSpec plain_rope(const Config& config, double default_theta, int64_t head_width);
Activation activation(const Config& config);  ///< hidden_act, needed
/// The window in every layer, but for those that layer_types calls full_attention.
std::vector<int64_t> windows(const Config& config, int64_t layers, int64_t window);
/// The spec, unless its numbers contradict each other.
ModelSpec checked(const Config& config, ModelSpec spec);

}  // namespace converters

}  // namespace moue
