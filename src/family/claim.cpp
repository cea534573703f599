// Matches the tensors of a checkpoint with the rows of its family, both ways.
#include "core/text.h"
#include "family/faults.h"
#include "moue/checkpoint.h"
#include "moue/error.h"
#include "moue/family.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <stdexcept>
#include <unordered_map>

namespace moue {

namespace {

// A tensor's name with its numbers taken out: "model.layers.#.mlp.experts.#.up_proj.weight", {3,
// 1}.
struct Parsed {
  std::string pattern;
  std::array<int64_t, 2> numbers = {-1, -1};
  size_t count = 0;
};

// Nothing but a number as we write them: no sign, no leading zero, nine digits at most.
bool read_index(std::string_view text, int64_t& value) {
  if (text.empty() || text.size() > 9 || (text.size() > 1 && text[0] == '0')) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return text[0] != '-' && error == std::errc() && end == text.data() + text.size();
}

Parsed parse(std::string_view name) {
  Parsed result;
  result.pattern.reserve(name.size());
  while (true) {
    const size_t dot = name.find('.');
    const std::string_view part = name.substr(0, dot);
    int64_t value = 0;
    if (result.count < 2 && read_index(part, value)) {
      result.numbers[result.count++] = value;
      result.pattern += '#';
    } else {
      result.pattern += part;
    }
    if (dot == std::string_view::npos) return result;
    result.pattern += '.';
    name.remove_prefix(dot + 1);
  }
}

// A row ready for matching: which of a name's numbers is the layer, which the expert, and the shape
// in numbers.
struct Matcher {
  const Row* row = nullptr;
  int layer_at = -1;
  int expert_at = -1;
  std::vector<int64_t> shape;
  bool required = true;
  int64_t seen = 0;
};

std::string pattern_of(std::string_view row_name) {
  std::string result(row_name);
  for (std::string_view placeholder : {"{L}", "{E}"}) {
    for (size_t at; (at = result.find(placeholder)) != std::string::npos;)
      result.replace(at, 3, "#");
  }
  return result;
}

bool is_bias(Role role) {
  return role == Role::QueryBias || role == Role::KeyBias || role == Role::ValueBias;
}

// Whether the spec knows the row at all, and whether it then must be there.
bool stands(const Row& row, const ModelSpec& spec) {
  if (is_bias(row.role)) return spec.attention.bias;
  return row.role != Role::AttentionOutputBias || spec.attention.output_bias;
}

bool is_required(const Row& row, const ModelSpec& spec) {
  if (!row.optional || is_bias(row.role) || row.role == Role::AttentionOutputBias) return true;
  return row.role == Role::OutputHead && !spec.tied_head;
}

bool in_layer(Layers layers, const std::vector<bool>& moe, int64_t layer) {
  if (layer < 0 || layer >= static_cast<int64_t>(moe.size())) return false;
  return layers == Layers::All || (layers == Layers::Moe) == moe[layer];
}

class Matching {
 public:
  Matching(const Checkpoint& checkpoint, const Family& family)
      : checkpoint_(checkpoint), geometry_(family.geometry(checkpoint.config())) {
    const ModelSpec spec = family.spec(checkpoint.config());
    matchers_.reserve(family.tensors.size());
    for (const Row& row : family.tensors) {
      if (stands(row, spec)) add(row, is_required(row, spec));
    }
  }

  Claim match(const TensorInfo& tensor) {
    const Parsed name = parse(tensor.name);
    Claim result;
    const auto [first, last] = by_pattern_.equal_range(name.pattern);
    for (auto it = first; it != last; ++it) {
      Matcher& matcher = matchers_[it->second];
      const Claim claim = fit(matcher, name);
      if (!claim.row) continue;
      if (result.row) {
        throw std::logic_error(fmt::format("two rows of the family fit {}", tensor.name));
      }
      result = claim;
      ++matcher.seen;
      if (tensor.shape != matcher.shape) {
        shapes_.add("{} is {}, config.json asks for {}", printable(tensor.name),
                    shape_text(tensor.shape), shape_text(matcher.shape));
      }
    }
    if (!result.row) strangers_.add("{}", printable(tensor.name));
    return result;
  }

  // Enumerates only as far as faults are shown.
  void find_missing(const Claims& claims) {
    for (const Matcher& matcher : matchers_) {
      if (!matcher.required) continue;
      int64_t left = expected(matcher) - matcher.seen;
      for (int64_t layer : layers_of(matcher)) {
        for (int64_t expert : experts_of(matcher)) {
          if (left == 0 || missing_.is_full()) break;
          if (claims.find(matcher.row->role, layer, expert)) continue;
          missing_.add("{}", expand_name(matcher.row->name, layer, expert));
          --left;
        }
        if (left == 0 || missing_.is_full()) break;
      }
      missing_.add_unnamed(left);
    }
  }

  void refuse_faults(const Family& family) const {
    std::vector<std::string> kinds;
    if (strangers_.count()) kinds.push_back(strangers_.text("tensor", "without a row"));
    if (missing_.count()) kinds.push_back(missing_.text("tensor", "missing"));
    if (shapes_.count()) kinds.push_back(shapes_.text("tensor", "of another shape"));
    if (kinds.empty()) return;
    fail("family", "{} does not fit converters/{}.cpp: {}; are config and shards from one model?",
         checkpoint_.directory().string(), family.name, fmt::join(kinds, "; "));
  }

 private:
  void add(const Row& row, bool required) {
    Matcher matcher{.row = &row, .shape = expand_shape(row.shape, geometry_), .required = required};
    const size_t layer = row.name.find("{L}"), expert = row.name.find("{E}");
    const bool has_layer = layer != std::string_view::npos,
               has_expert = expert != std::string_view::npos;
    if (has_layer) matcher.layer_at = has_expert && expert < layer ? 1 : 0;
    if (has_expert) matcher.expert_at = has_layer && layer < expert ? 1 : 0;
    by_pattern_.emplace(pattern_of(row.name), matchers_.size());
    matchers_.push_back(std::move(matcher));
  }

  Claim fit(const Matcher& matcher, const Parsed& name) const {
    const size_t wanted = (matcher.layer_at >= 0) + (matcher.expert_at >= 0);
    if (name.count != wanted) return {};
    Claim claim{.row = matcher.row};
    if (matcher.layer_at >= 0) claim.layer = name.numbers[matcher.layer_at];
    if (matcher.expert_at >= 0) claim.expert = name.numbers[matcher.expert_at];
    if (matcher.layer_at >= 0 && !in_layer(matcher.row->layers, geometry_.moe, claim.layer))
      return {};
    if (matcher.expert_at >= 0 && claim.expert >= geometry_.experts) return {};
    return claim;
  }

  std::vector<int64_t> layers_of(const Matcher& matcher) const {
    if (matcher.layer_at < 0) return {-1};
    std::vector<int64_t> result;
    for (int64_t layer = 0; layer < static_cast<int64_t>(geometry_.moe.size()); ++layer) {
      if (in_layer(matcher.row->layers, geometry_.moe, layer)) result.push_back(layer);
    }
    return result;
  }

  std::vector<int64_t> experts_of(const Matcher& matcher) const {
    if (matcher.expert_at < 0) return {-1};
    std::vector<int64_t> result(geometry_.experts);
    for (int64_t expert = 0; expert < geometry_.experts; ++expert) result[expert] = expert;
    return result;
  }

  int64_t expected(const Matcher& matcher) const {
    const auto layers = static_cast<int64_t>(layers_of(matcher).size());
    return matcher.expert_at < 0 ? layers : layers * geometry_.experts;
  }

  const Checkpoint& checkpoint_;
  Geometry geometry_;
  std::vector<Matcher> matchers_;
  std::unordered_multimap<std::string, size_t> by_pattern_;
  Faults strangers_, missing_, shapes_;
};

}  // namespace

uint64_t Claims::key(Role role, int64_t layer, int64_t expert) {
  // 24 bits each, and -1 as 0: layers and experts are below 65536.
  return static_cast<uint64_t>(role) << 48 | static_cast<uint64_t>(layer + 1) << 24 |
         static_cast<uint64_t>(expert + 1);
}

const TensorInfo* Claims::find(Role role, int64_t layer, int64_t expert) const {
  const uint64_t wanted = key(role, layer, expert);
  const auto at =
      std::lower_bound(index_.begin(), index_.end(), wanted,
                       [](const auto& entry, uint64_t value) { return entry.first < value; });
  return at != index_.end() && at->first == wanted ? at->second : nullptr;
}

const TensorInfo& Claims::at(Role role, int64_t layer, int64_t expert) const {
  if (const TensorInfo* tensor = find(role, layer, expert)) return *tensor;
  fail("family", "no tensor has the role {} in layer {}, expert {}", role_name(role), layer,
       expert);
}

Claims claim(const Checkpoint& checkpoint, const Family& family) {
  Matching matching(checkpoint, family);
  Claims claims;
  const bool has_pool = checkpoint.config().has("moue");
  claims.claims_.reserve(checkpoint.tensors().size());
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    if (has_pool && tensor.name.starts_with("moue.")) {
      claims.claims_.push_back({});
      continue;
    }
    const Claim claim = matching.match(tensor);
    claims.claims_.push_back(claim);
    if (!claim.row || claim.row->role == Role::Ignored) continue;
    claims.index_.emplace_back(Claims::key(claim.row->role, claim.layer, claim.expert), &tensor);
  }
  std::sort(claims.index_.begin(), claims.index_.end());
  matching.find_missing(claims);
  matching.refuse_faults(family);
  return claims;
}

}  // namespace moue
