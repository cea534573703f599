// Names of roles; the letters of a row's name and shape put into numbers.
#include "moue/error.h"
#include "moue/family.h"

#include <charconv>
#include <stdexcept>

namespace moue {

namespace {

int64_t letter(char name, const Geometry& geometry) {
  switch (name) {
    case 'V':
      return geometry.vocabulary;
    case 'D':
      return geometry.width;
    case 'H':
      return geometry.heads;
    case 'G':
      return geometry.kv_heads;
    case 'A':
      return geometry.head_width;
    case 'F':
      return geometry.expert_width;
    case 'I':
      return geometry.dense_width;
    case 'E':
      return geometry.experts;
    case 'K':
      return geometry.experts_per_token;
    default:
      throw std::logic_error(
          fmt::format("shape letter '{}' is not in the legend of Geometry", name));
  }
}

// "H*A", "A/2": letters and numbers, from left to right.
int64_t dimension(std::string_view text, const Geometry& geometry) {
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

}  // namespace

std::string_view role_name(Role role) {
  using enum Role;
  switch (role) {
    case Embedding:
      return "embedding";
    case OutputHead:
      return "output_head";
    case FinalNorm:
      return "final_norm";
    case AttentionNorm:
      return "attention_norm";
    case MlpNorm:
      return "mlp_norm";
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
    case Router:
      return "router";
    case ExpertGate:
      return "expert_gate";
    case ExpertUp:
      return "expert_up";
    case ExpertDown:
      return "expert_down";
    case DenseGate:
      return "dense_gate";
    case DenseUp:
      return "dense_up";
    case DenseDown:
      return "dense_down";
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
