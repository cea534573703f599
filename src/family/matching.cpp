// Matches names and shapes of tensors with the rows of a family.
#include "family/matching.h"

#include "core/text.h"
#include "moue/error.h"

#include <algorithm>
#include <charconv>
#include <stdexcept>

namespace moue {

namespace {

// Nothing but a number as we write them: no sign, no leading zero, nine digits at most.
bool read_index(std::string_view text, int64_t& value) {
  if (text.empty() || text.size() > 9 || (text.size() > 1 && text[0] == '0')) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return text[0] != '-' && error == std::errc() && end == text.data() + text.size();
}

std::string pattern_of(std::string_view row_name) {
  std::string result(row_name);
  for (std::string_view placeholder : {"{L}", "{E}"}) {
    for (size_t at; (at = result.find(placeholder)) != std::string::npos;)
      result.replace(at, 3, "#");
  }
  return result;
}

const Row kExtraLayer{"model.layers.{L}.*", Role::Ignored, ""};

}  // namespace

bool stands(const Row& row, const ModelSpec& spec) {
  const AttentionSpec& a = spec.attention;
  const bool latent = a.kind(0) == AttentionKind::Latent;
  using enum Role;
  switch (row.role) {
    case QueryBias:
    case KeyBias:
    case ValueBias:
    case KeyValueDownBias:
      return a.bias;
    case QueryDownBias:
      return a.bias && a.latent.query_rank > 0;
    case AttentionOutputBias:
      return a.output_bias;
    case QueryNorm:
    case KeyNorm:
      return a.qk_norm != QkNorm::None;
    case Sinks:
      return a.sinks;
    case Query:
      return !latent || a.latent.query_rank == 0;
    case QueryDown:
    case QueryDownNorm:
    case QueryUp:
      return a.latent.query_rank > 0;
    case AttentionNormBias:
    case MlpNormBias:
    case FinalNormBias:
      return spec.norm.bias;
    case OutputHeadBias:
      return spec.head_bias;
    case RouterBias:
      return spec.router.bias;
    case RouterCorrection:
      return spec.router.correction;
    case ExpertGateBias:
    case ExpertUpBias:
    case ExpertDownBias:
    case ExpertGateUpBiasPairs:
      return spec.expert_bias;
    case MlpBias:
      return spec.mlp_bias;
    case SharedGate:
    case SharedUp:
    case SharedDown:
      return spec.shared_width > 0;
    case SharedMix:
      return spec.shared_gate;
    default:
      return true;
  }
}

bool is_required(const Row& row, const ModelSpec& spec) {
  if (row.role == Role::OutputHead) return !spec.tied_head;
  return !row.optional;
}

bool in_layer(Layers layers, const Geometry& geometry, int64_t layer) {
  if (layer < 0 || layer >= static_cast<int64_t>(geometry.moe.size())) return false;
  switch (layers) {
    case Layers::Moe:
      return geometry.moe[layer];
    case Layers::Dense:
      return !geometry.moe[layer];
    case Layers::Linear:
      return geometry.linear[layer];
    case Layers::Softmax:
      return !geometry.linear[layer];
    default:
      return true;
  }
}

ParsedName parse_name(std::string_view name) {
  ParsedName result;
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

const Form& form_of(const Family& family, const std::unordered_set<std::string>& patterns) {
  const Form* best = &family.forms.front();
  int64_t most = -1;
  for (const Form& form : family.forms) {
    const int64_t found = std::ranges::count_if(
        form.rows, [&](const Row& row) { return patterns.contains(pattern_of(row.name)); });
    if (found <= most) continue;
    most = found;
    best = &form;
  }
  return *best;
}

Matching::Matching(const Checkpoint& checkpoint, const Family& family, const ModelSpec& spec,
                   const Form& form)
    : checkpoint_(checkpoint), family_(family), form_(form.name), geometry_(geometry_of(spec)) {
  for (const std::vector<Row>* rows : {&family.tensors, &form.rows}) {
    for (const Row& row : *rows) {
      if (stands(row, spec)) add(row, is_required(row, spec));
    }
  }
}

Claim Matching::match(const TensorInfo& tensor, const ParsedName& name) {
  if (const Claim extra = extra_layer(name); extra.row) return extra;
  Claim result;
  const auto [first, last] = by_pattern_.equal_range(name.pattern);
  for (auto it = first; it != last; ++it) {
    Matcher& matcher = matchers_[it->second];
    const Claim claim = fit(matcher, name);
    if (!claim.row) continue;
    if (result.row)
      throw std::logic_error(fmt::format("two rows of the family fit {}", tensor.name));
    result = claim;
    matcher.seen[place(matcher, claim.layer, claim.expert)] = true;
    ++matcher.count;
    if (tensor.shape != matcher.shape) add_shape(tensor, matcher.shape);
  }
  return result;
}

void Matching::add_stranger(const TensorInfo& tensor) {
  strangers_.add("{}", printable(tensor.name));
}

void Matching::add_shape(const TensorInfo& tensor, std::span<const int64_t> wanted) {
  shapes_.add("{} is {}, config.json asks for {}", printable(tensor.name), shape_text(tensor.shape),
              shape_text(wanted));
}

void Matching::find_missing() {
  for (const Matcher& matcher : matchers_) {
    if (!matcher.required) continue;
    const std::vector<int64_t> layers = layers_of(matcher), experts = experts_of(matcher);
    int64_t left = static_cast<int64_t>(layers.size() * experts.size()) - matcher.count;
    for (size_t i = 0; left > 0 && i < layers.size() * experts.size(); ++i) {
      if (missing_.is_full()) break;
      const int64_t layer = layers[i / experts.size()], expert = experts[i % experts.size()];
      if (matcher.seen[place(matcher, layer, expert)]) continue;
      missing_.add("{}", expand_name(matcher.row->name, layer, expert));
      --left;
    }
    missing_.add_unnamed(left);
  }
}

void Matching::refuse_faults() const {
  std::vector<std::string> kinds;
  if (strangers_.count()) kinds.push_back(strangers_.text("tensor", "without a row"));
  if (missing_.count()) kinds.push_back(missing_.text("tensor", "missing"));
  if (shapes_.count()) kinds.push_back(shapes_.text("tensor", "of another shape"));
  kinds.insert(kinds.end(), others_.begin(), others_.end());
  if (kinds.empty()) return;
  const std::string form =
      family_.forms.size() > 1 ? fmt::format(" (form {})", in_quotes(form_)) : "";
  fail("family", "{} does not fit converters/{}.cpp{}: {}; are config and shards from one model?",
       checkpoint_.directory().string(), family_.name, form, fmt::join(kinds, "; "));
}

void Matching::add(const Row& row, bool required) {
  Matcher matcher{.row = &row, .shape = expand_shape(row.shape, geometry_), .required = required};
  const size_t layer = row.name.find("{L}"), expert = row.name.find("{E}");
  const bool has_layer = layer != std::string_view::npos,
             has_expert = expert != std::string_view::npos;
  if (has_layer) matcher.layer_at = has_expert && expert < layer ? 1 : 0;
  if (has_expert) matcher.expert_at = has_layer && layer < expert ? 1 : 0;
  const size_t layers = has_layer ? geometry_.moe.size() : 1;
  matcher.seen.resize(layers * static_cast<size_t>(has_expert ? geometry_.experts : 1));
  by_pattern_.emplace(pattern_of(row.name), matchers_.size());
  matchers_.push_back(std::move(matcher));
}

Claim Matching::fit(const Matcher& matcher, const ParsedName& name) const {
  const size_t wanted = (matcher.layer_at >= 0) + (matcher.expert_at >= 0);
  if (name.count != wanted) return {};
  Claim claim{.row = matcher.row};
  if (matcher.layer_at >= 0) claim.layer = name.numbers[matcher.layer_at];
  if (matcher.expert_at >= 0) claim.expert = name.numbers[matcher.expert_at];
  if (matcher.layer_at >= 0 && !in_layer(matcher.row->layers, geometry_, claim.layer)) return {};
  if (matcher.expert_at >= 0 && claim.expert >= geometry_.experts) return {};
  return claim;
}

std::vector<int64_t> Matching::layers_of(const Matcher& matcher) const {
  if (matcher.layer_at < 0) return {-1};
  std::vector<int64_t> result;
  for (int64_t layer = 0; layer < static_cast<int64_t>(geometry_.moe.size()); ++layer) {
    if (in_layer(matcher.row->layers, geometry_, layer)) result.push_back(layer);
  }
  return result;
}

std::vector<int64_t> Matching::experts_of(const Matcher& matcher) const {
  if (matcher.expert_at < 0) return {-1};
  std::vector<int64_t> result(geometry_.experts);
  for (int64_t expert = 0; expert < geometry_.experts; ++expert) result[expert] = expert;
  return result;
}

size_t Matching::place(const Matcher& matcher, int64_t layer, int64_t expert) const {
  const int64_t experts = matcher.expert_at < 0 ? 1 : geometry_.experts;
  return static_cast<size_t>(std::max<int64_t>(layer, 0) * experts + std::max<int64_t>(expert, 0));
}

// Layers behind the last one, which predict further tokens, are kept as they are.
Claim Matching::extra_layer(const ParsedName& name) const {
  const auto layers = static_cast<int64_t>(geometry_.moe.size());
  if (name.count == 0 || !name.pattern.starts_with("model.layers.#.")) return {};
  const int64_t layer = name.numbers[0];
  if (layer < layers || layer >= layers + geometry_.extra_layers) return {};
  return {.row = &kExtraLayer, .layer = layer};
}

}  // namespace moue
