// Names of roles; the letters of a row's name and shape put into numbers.
#include "moue/error.h"
#include "moue/family.h"

#include <charconv>
#include <map>
#include <stdexcept>

namespace moue {

namespace {

int64_t letter(char name, const Geometry& g) {
  static const std::map<char, int64_t Geometry::*> legend = {
      {'V', &Geometry::vocabulary},  {'D', &Geometry::width},
      {'H', &Geometry::heads},       {'G', &Geometry::kv_heads},
      {'A', &Geometry::head_width},  {'F', &Geometry::expert_width},
      {'I', &Geometry::dense_width}, {'S', &Geometry::shared_width},
      {'E', &Geometry::experts},     {'K', &Geometry::experts_per_token},
      {'Q', &Geometry::query_rank},  {'R', &Geometry::rank},
      {'N', &Geometry::plain_width}, {'P', &Geometry::rope_width},
      {'U', &Geometry::value_width}, {'B', &Geometry::block}};
  const auto found = legend.find(name);
  if (found != legend.end()) return g.*found->second;
  throw std::logic_error(fmt::format("shape letter '{}' is not in the legend of Geometry", name));
}

// "H*A", "A/2": letters and numbers, from left to right.
int64_t product(std::string_view text, const Geometry& geometry) {
  int64_t result = 0;
  char operation = '=';
  for (size_t at = 0; at < text.size();) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), value);
    if (error == std::errc()) {
      at = end - text.data();
    } else {
      value = letter(text[at++], geometry);
    }
    result = operation == '*' ? result * value : operation == '/' ? result / value : value;
    if (at == text.size()) return result;
    operation = text[at++];
    if (operation != '*' && operation != '/') break;
  }
  throw std::logic_error(fmt::format("shape '{}' is not a product", text));
}

// "H*N+H*P": a sum of products.
int64_t dimension(std::string_view text, const Geometry& geometry) {
  int64_t result = 0;
  while (true) {
    const size_t plus = text.find('+');
    result += product(text.substr(0, plus), geometry);
    if (plus == std::string_view::npos) return result;
    text.remove_prefix(plus + 1);
  }
}

}  // namespace

std::string_view role_name(Role role) {
  using enum Role;
  switch (role) {
    case Embedding:
      return "embedding";
    case OutputHead:
      return "output_head";
    case OutputHeadBias:
      return "output_head_bias";
    case FinalNorm:
      return "final_norm";
    case FinalNormBias:
      return "final_norm_bias";
    case AttentionNorm:
      return "attention_norm";
    case AttentionNormBias:
      return "attention_norm_bias";
    case MlpNorm:
      return "mlp_norm";
    case MlpNormBias:
      return "mlp_norm_bias";
    case Query:
      return "query";
    case Key:
      return "key";
    case Value:
      return "value";
    case AttentionOutput:
      return "attention_output";
    case QueryBias:
      return "query_bias";
    case KeyBias:
      return "key_bias";
    case ValueBias:
      return "value_bias";
    case AttentionOutputBias:
      return "attention_output_bias";
    case QueryNorm:
      return "query_norm";
    case KeyNorm:
      return "key_norm";
    case QueryKeyValue:
      return "query_key_value";
    case KeyValue:
      return "key_value";
    case Sinks:
      return "sinks";
    case QueryDown:
      return "query_down";
    case QueryDownBias:
      return "query_down_bias";
    case QueryDownNorm:
      return "query_down_norm";
    case QueryUp:
      return "query_up";
    case KeyValueDown:
      return "key_value_down";
    case KeyValueDownBias:
      return "key_value_down_bias";
    case KeyValueDownNorm:
      return "key_value_down_norm";
    case KeyValueUp:
      return "key_value_up";
    case LinearInput:
      return "linear_input";
    case LinearNorm:
      return "linear_norm";
    case LinearGate:
      return "linear_gate";
    case LinearOutput:
      return "linear_output";
    case AttentionRouter:
      return "attention_router";
    case AttentionExpertInput:
      return "attention_expert_input";
    case AttentionExpertOutput:
      return "attention_expert_output";
    case AttentionExpertsBias:
      return "attention_experts_bias";
    case Router:
      return "router";
    case RouterBias:
      return "router_bias";
    case RouterCorrection:
      return "router_correction";
    case ExpertGate:
      return "expert_gate";
    case ExpertUp:
      return "expert_up";
    case ExpertDown:
      return "expert_down";
    case ExpertGateBias:
      return "expert_gate_bias";
    case ExpertUpBias:
      return "expert_up_bias";
    case ExpertDownBias:
      return "expert_down_bias";
    case ExpertGateUp:
      return "expert_gate_up";
    case ExpertGateUpPairs:
      return "expert_gate_up_pairs";
    case ExpertGateUpBiasPairs:
      return "expert_gate_up_bias_pairs";
    case MlpBias:
      return "mlp_bias";
    case SharedGate:
      return "shared_gate";
    case SharedUp:
      return "shared_up";
    case SharedDown:
      return "shared_down";
    case SharedMix:
      return "shared_mix";
    case DenseGate:
      return "dense_gate";
    case DenseUp:
      return "dense_up";
    case DenseDown:
      return "dense_down";
    case Scale:
      return "scale";
    case Ignored:
      return "ignored";
  }
  return "unknown";
}

std::string expand_name(std::string_view pattern, int64_t layer, int64_t expert) {
  std::string result;
  while (!pattern.empty()) {
    if (pattern.starts_with("{L}") || pattern.starts_with("{E}")) {
      result += std::to_string(pattern[1] == 'L' ? layer : expert);
      pattern.remove_prefix(3);
    } else {
      result += pattern.front();
      pattern.remove_prefix(1);
    }
  }
  return result;
}

std::vector<int64_t> expand_shape(std::string_view shape, const Geometry& geometry) {
  std::vector<int64_t> result;
  while (!shape.empty()) {
    const size_t space = shape.find(' ');
    result.push_back(dimension(shape.substr(0, space), geometry));
    if (space == std::string_view::npos) break;
    shape.remove_prefix(space + 1);
  }
  return result;
}

}  // namespace moue
