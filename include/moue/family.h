// Family: what each tensor of an architecture is, how it computes; one file in converters/.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
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
  OutputHeadBias,
  FinalNorm,
  FinalNormBias,
  AttentionNorm,
  AttentionNormBias,
  MlpNorm,
  MlpNormBias,
  // Attention
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
  QueryKeyValue,  ///< the three one under the other
  KeyValue,
  Sinks,
  // Latent attention: projections down to a rank, its norm, and up to heads
  QueryDown,
  QueryDownBias,
  QueryDownNorm,
  QueryUp,
  KeyValueDown,  ///< with the shared rotary key behind
  KeyValueDownBias,
  KeyValueDownNorm,
  KeyValueUp,
  // Linear attention
  LinearInput,  ///< query, key, value of head 0, of head 1, ...
  LinearNorm,
  LinearGate,
  LinearOutput,
  // Attention by experts
  AttentionRouter,
  AttentionExpertInput,
  AttentionExpertOutput,
  AttentionExpertsBias,
  // Routed block
  Router,
  RouterBias,
  RouterCorrection,
  ExpertGate,
  ExpertUp,
  ExpertDown,
  ExpertGateBias,
  ExpertUpBias,
  ExpertDownBias,
  ExpertGateUp,           ///< rows of the gate, then rows of up
  ExpertGateUpPairs,      ///< rows of gate and up in turn
  ExpertGateUpBiasPairs,  ///< elements of the gate's and up's bias in turn
  MlpBias,
  SharedGate,
  SharedUp,
  SharedDown,
  SharedMix,  ///< [1, D]: how much of the shared expert a token takes
  // Dense block
  DenseGate,
  DenseUp,
  DenseDown,
  Scale,  ///< of the blocks of a quantised tensor
  Ignored
};
std::string_view role_name(Role role);

/// In which layers a row with "{L}" stands.
enum class Layers : uint8_t { None, All, Moe, Dense, Softmax, Linear };

/// How the numbers of a tensor are packed.
enum class Packing : uint8_t {
  Plain,
  BlockScaled,  ///< each square of a matrix has a float32 factor, in NAME_scale_inv
  Mxfp4,        ///< two FP4 values a byte, low half first; every 32 share a power of two
};

/// Sizes behind the letters of a Row's shape, and in which layers rows stand.
struct Geometry {
  int64_t vocabulary = 0;         ///< V
  int64_t width = 0;              ///< D
  int64_t heads = 0;              ///< H
  int64_t kv_heads = 0;           ///< G
  int64_t head_width = 0;         ///< A
  int64_t expert_width = 0;       ///< F
  int64_t dense_width = 0;        ///< I
  int64_t shared_width = 0;       ///< S
  int64_t experts = 0;            ///< E
  int64_t experts_per_token = 0;  ///< K
  int64_t query_rank = 0;         ///< Q, latent attention
  int64_t rank = 0;               ///< R
  int64_t plain_width = 0;        ///< N
  int64_t rope_width = 0;         ///< P
  int64_t value_width = 0;        ///< U
  int64_t block = 0;              ///< B, linear attention
  std::vector<bool> moe = {};     ///< per layer; its size is the number of layers
  std::vector<bool> linear = {};  ///< per layer: is its attention linear
  int64_t extra_layers = 0;       ///< after those, whose tensors are claimed as Ignored
};

/// A tensor by name. Where the role belongs to an expert and the name has no "{E}", the tensor
/// stacks those of all experts of its layer, outermost.
struct Row {
  std::string_view name;  ///< "{L}" is the layer, "{E}" the routed expert
  Role role;
  /// Letters of Geometry, outermost first: "F D"; products "H*A D", sums of products "H*N+H*P Q".
  std::string_view shape;
  Layers layers = Layers::None;
  /// May be missing. An output head is needed all the same unless the spec ties it; a bias row
  /// stands only where the spec has that bias, and then is needed.
  bool optional = false;
  bool transposed = false;           ///< an expert's matrix is stored as [in, out]
  Packing packing = Packing::Plain;  ///< Mxfp4: NAME_blocks has its scales in NAME_scales
};

/// One of the forms in which a family's routed blocks are found on disk.
struct Form {
  std::string_view name;  ///< "per expert", "fused", "stacked", "MXFP4"
  std::vector<Row> rows;
};

struct Family {
  std::string_view name = {};  ///< its file in converters/, filled in by the table
  /// config.json "architectures" entries it answers to.
  std::vector<std::string_view> architectures;
  ModelSpec (*spec)(const Config& config) = nullptr;
  std::vector<Row> tensors;  ///< the same in every form
  /// At least one; a checkpoint has the form of which most rows are found by name.
  std::vector<Form> forms;
  /// A small config.json, sizes unequal: what tests walk and docs/families.md describes.
  std::string_view example;
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

/// A matrix inside a tensor of the file, as the model computes with it: [out, in]; a vector has one
/// column. Offset and strides count elements of the unpacked tensor.
struct Slice {
  const TensorInfo* tensor = nullptr;
  const TensorInfo* scale = nullptr;  ///< of a packed tensor
  Packing packing = Packing::Plain;
  int64_t offset = 0;
  int64_t rows = 0, columns = 0;
  int64_t row_stride = 0, column_stride = 1;
  int64_t block_rows = 128, block_columns = 128;  ///< BlockScaled

  bool is_contiguous() const { return column_stride == 1 && (row_stride == columns || rows == 1); }
};

/// All of a tensor that is Plain.
Slice whole_slice(const TensorInfo& tensor);

/// The slice's values, row by row, unpacked and as float32. Throws Error where it is no float type.
void read_slice(const Checkpoint& checkpoint, const Slice& slice, std::span<float> out);

/// A checkpoint whose every tensor has been recognised.
class Claims {
 public:
  /// The tensor with this role, or nullptr where an optional one is absent.
  const TensorInfo* find(Role role, int64_t layer = -1, int64_t expert = -1) const;
  const TensorInfo& at(Role role, int64_t layer = -1, int64_t expert = -1) const;
  /// The same wherever it lies: in a tensor of its own, in a stack, beside another role. Nothing
  /// where it is absent.
  std::optional<Slice> slice(Role role, int64_t layer = -1, int64_t expert = -1) const;
  /// The claim of checkpoint.tensors()[i]; row == nullptr for tensors under "moue.".
  const std::vector<Claim>& of_tensors() const { return claims_; }
  std::string_view form() const { return form_; }
  bool is_packed() const;  ///< is some tensor not Plain

 private:
  struct Entry {
    uint64_t key;
    const TensorInfo* tensor;
    const TensorInfo* scale;
    const Row* row;
  };
  friend Claims claim(const Checkpoint&, const Family&);
  static uint64_t key(Role role, int64_t layer, int64_t expert);
  const Entry* entry(Role role, int64_t layer, int64_t expert) const;
  std::optional<Slice> part(Role whole, Role role, int64_t layer, int64_t expert) const;
  std::vector<Claim> claims_;
  std::vector<Entry> index_;  // sorted by key
  std::string_view form_;
  Geometry geometry_;
  std::array<int64_t, 2> block_{};  // of block scales
};

/// Matches rows and tensors both ways. Throws Error listing all tensors without a row, all required
/// rows without a tensor and all shapes that disagree with config.json. Tensors under "moue." are
/// left to Pool where the config has its block. The checkpoint must outlive the result.
Claims claim(const Checkpoint& checkpoint, const Family& family);

/// Sizes and layers of a spec.
Geometry geometry_of(const ModelSpec& spec);

/// Expands a row's name: expand_name("layers.{L}.experts.{E}", 3, 1) is "layers.3.experts.1".
std::string expand_name(std::string_view pattern, int64_t layer, int64_t expert);
/// Expands a row's shape: "A/2", "H*A D", "R+P D". Throws std::logic_error for a letter the legend
/// lacks.
std::vector<int64_t> expand_shape(std::string_view shape, const Geometry& geometry);

}  // namespace moue
