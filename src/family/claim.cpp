// Claims a checkpoint's tensors for the rows of its family, both ways.
#include "core/text.h"
#include "family/matching.h"
#include "moue/checkpoint.h"
#include "moue/error.h"
#include "moue/family.h"

#include <algorithm>

namespace moue {

namespace {

constexpr std::string_view kScaleSuffix = "_scale_inv";

const Row kScaleRow{"*_scale_inv", Role::Scale, ""};

bool is_fp8(Dtype dtype) { return dtype == Dtype::F8E4M3 || dtype == Dtype::F8E5M2; }

// Rows and columns of the squares that share a factor; nothing where the config names no such
// quantisation.
std::optional<std::array<int64_t, 2>> scale_block(const Config& config) {
  if (config.string("quantization_config.quant_method", "") != "fp8") return std::nullopt;
  const std::vector<int64_t> sizes = config.integers("quantization_config.weight_block_size");
  if (sizes.empty()) return std::array<int64_t, 2>{128, 128};
  if (sizes.size() == 2 && std::ranges::all_of(sizes, [](int64_t n) { return n > 0; }))
    return std::array<int64_t, 2>{sizes[0], sizes[1]};
  fail("family", "{}: quantization_config.weight_block_size is [{}], wanted two sizes",
       config.origin(), fmt::join(sizes, ", "));
}

// Pairs quantised matrices with their factors and checks both.
class ScaleFinder {
 public:
  ScaleFinder(const Checkpoint& checkpoint, Matching& matching)
      : checkpoint_(checkpoint), matching_(matching), block_(scale_block(checkpoint.config())) {}

  /// The matrix whose factors this tensor holds, or nullptr.
  const TensorInfo* matrix_of(const TensorInfo& tensor) const {
    if (!block_ || !tensor.name.ends_with(kScaleSuffix)) return nullptr;
    const TensorInfo* matrix =
        checkpoint_.find(tensor.name.substr(0, tensor.name.size() - kScaleSuffix.size()));
    return matrix && matrix->shape.size() == 2 ? matrix : nullptr;
  }

  void check(const TensorInfo& matrix, const TensorInfo& scale) {
    const std::array<int64_t, 2> wanted = {(matrix.shape[0] + (*block_)[0] - 1) / (*block_)[0],
                                           (matrix.shape[1] + (*block_)[1] - 1) / (*block_)[1]};
    if (!std::ranges::equal(scale.shape, wanted)) matching_.add_shape(scale, wanted);
  }

  /// The factors of a tensor that cannot be read without them.
  const TensorInfo* scale_of(const TensorInfo& tensor, const Row& row) {
    if (row.packing == Packing::Mxfp4)
      return checkpoint_.find(tensor.name.substr(0, tensor.name.rfind('_')) + "_scales");
    if (!is_fp8(tensor.dtype)) return nullptr;
    const TensorInfo* scale = checkpoint_.find(tensor.name + std::string(kScaleSuffix));
    if (!scale || !block_) lacking_.add("{}", printable(tensor.name));
    return scale;
  }

  void finish() {
    if (lacking_.count()) matching_.add_fault(lacking_.text("FP8 tensor", "without block scales"));
  }
  std::array<int64_t, 2> block() const { return block_.value_or(std::array<int64_t, 2>{128, 128}); }

 private:
  const Checkpoint& checkpoint_;
  Matching& matching_;
  std::optional<std::array<int64_t, 2>> block_;
  Faults lacking_;
};

}  // namespace

uint64_t Claims::key(Role role, int64_t layer, int64_t expert) {
  // 24 bits each, and -1 as 0: layers and experts are below 65536.
  return static_cast<uint64_t>(role) << 48 | static_cast<uint64_t>(layer + 1) << 24 |
         static_cast<uint64_t>(expert + 1);
}

const Claims::Entry* Claims::entry(Role role, int64_t layer, int64_t expert) const {
  const uint64_t wanted = key(role, layer, expert);
  const auto at = std::ranges::lower_bound(index_, wanted, {}, &Entry::key);
  return at != index_.end() && at->key == wanted ? &*at : nullptr;
}

const TensorInfo* Claims::find(Role role, int64_t layer, int64_t expert) const {
  const Entry* found = entry(role, layer, expert);
  return found ? found->tensor : nullptr;
}

const TensorInfo& Claims::at(Role role, int64_t layer, int64_t expert) const {
  if (const TensorInfo* tensor = find(role, layer, expert)) return *tensor;
  fail("family", "no tensor has the role {} in layer {}, expert {}", role_name(role), layer,
       expert);
}

Claims claim(const Checkpoint& checkpoint, const Family& family) {
  const ModelSpec spec = family.spec(checkpoint.config());
  const bool has_pool = checkpoint.config().has("moue");
  const std::vector<TensorInfo>& tensors = checkpoint.tensors();
  std::vector<ParsedName> names;
  std::unordered_set<std::string> patterns;
  for (const TensorInfo& tensor : tensors) {
    names.push_back(parse_name(tensor.name));
    patterns.insert(names.back().pattern);
  }
  const Form& form = form_of(family, patterns);
  Matching matching(checkpoint, family, spec, form);
  ScaleFinder scales(checkpoint, matching);
  Claims claims;
  claims.form_ = form.name;
  claims.geometry_ = geometry_of(spec);
  claims.block_ = scales.block();
  claims.claims_.resize(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (has_pool && tensors[i].name.starts_with("moue.")) continue;
    Claim& claim = claims.claims_[i] = matching.match(tensors[i], names[i]);
    if (!claim.row) {
      const TensorInfo* matrix = scales.matrix_of(tensors[i]);
      if (!matrix) {
        matching.add_stranger(tensors[i]);
        continue;
      }
      scales.check(*matrix, tensors[i]);
      claim.row = &kScaleRow;
    }
    if (claim.row->role == Role::Ignored || claim.row->role == Role::Scale) continue;
    const TensorInfo* scale = scales.scale_of(tensors[i], *claim.row);
    claims.index_.push_back(
        {Claims::key(claim.row->role, claim.layer, claim.expert), &tensors[i], scale, claim.row});
  }
  std::ranges::sort(claims.index_, {}, &Claims::Entry::key);
  matching.find_missing();
  scales.finish();
  matching.refuse_faults();
  return claims;
}

}  // namespace moue
