// Families as tests walk them.
#include "support/families.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

#include "family/matching.h"
#include "support/headers_only.h"

namespace moue::test {

const Family& family_named(std::string_view name) {
  for (const Family& family : families()) {
    if (family.name == name) return family;
  }
  throw std::logic_error("no family " + std::string(name));
}

Config example_of(const Family& family, const std::string& patch) {
  auto json = nlohmann::ordered_json::parse(family.example);
  json.merge_patch(nlohmann::ordered_json::parse(patch));
  return Config(json, "pico/config.json");
}

Config example_of(std::string_view family, const std::string& patch) {
  return example_of(family_named(family), patch);
}

std::vector<TensorInfo> tensors_of(const Family& family, const Config& config, size_t form,
                                   bool with_optional) {
  const ModelSpec spec = family.spec(config);
  const Geometry geometry = geometry_of(spec);
  std::vector<TensorInfo> result;
  for (const std::vector<Row>* rows : {&family.tensors, &family.forms.at(form).rows}) {
    for (const Row& row : *rows) {
      if (!stands(row, spec) || !(with_optional || is_required(row, spec))) continue;
      const bool has_layer = contains(std::string(row.name), "{L}"),
                 has_expert = contains(std::string(row.name), "{E}");
      for (int64_t layer = 0; layer < (has_layer ? spec.layers : 1); ++layer) {
        if (has_layer && !in_layer(row.layers, geometry, layer)) continue;
        for (int64_t expert = 0; expert < (has_expert ? geometry.experts : 1); ++expert) {
          TensorInfo tensor;
          tensor.name = expand_name(row.name, layer, expert);
          tensor.shape = expand_shape(row.shape, geometry);
          result.push_back(tensor);
        }
      }
    }
  }
  return result;
}

void expand(const std::string& pattern, const std::vector<int64_t>& shape,
            std::vector<TensorInfo>& out, Dtype dtype) {
  const size_t open = pattern.find('{');
  if (open == std::string::npos) {
    TensorInfo tensor;
    tensor.name = pattern;
    tensor.shape = shape;
    tensor.dtype = dtype;
    out.push_back(tensor);
    return;
  }
  const size_t dash = pattern.find('-', open), close = pattern.find('}', open);
  const int first = std::stoi(pattern.substr(open + 1, dash - open - 1));
  const int last = std::stoi(pattern.substr(dash + 1, close - dash - 1));
  for (int i = first; i <= last; ++i) {
    expand(pattern.substr(0, open) + std::to_string(i) + pattern.substr(close + 1), shape, out,
           dtype);
  }
}

void drop(std::vector<TensorInfo>& tensors, const std::string& name) {
  std::erase_if(tensors, [&](const TensorInfo& tensor) { return tensor.name == name; });
}

TensorInfo& named(std::vector<TensorInfo>& tensors, const std::string& name) {
  for (TensorInfo& tensor : tensors) {
    if (tensor.name == name) return tensor;
  }
  throw std::logic_error("no tensor " + name);
}

Released released(const std::string& name) {
  Released result{Config::parse("{}", "config.json"), {}};
  std::ifstream file("tests/golden/tensors/" + name + ".txt");
  for (std::string line; std::getline(file, line);) {
    const size_t space = line.find(' ');
    const std::string word = line.substr(0, space), rest = line.substr(space + 1);
    if (word == "#") continue;
    if (word == "config") {
      result.config = Config::parse(rest, "config.json");
      continue;
    }
    const size_t end = rest.find(']') + 1;
    const std::string dtype = end < rest.size() ? rest.substr(end + 1) : "BF16";
    expand(word, nlohmann::json::parse(rest.substr(0, end)).get<std::vector<int64_t>>(),
           result.tensors, dtype_of(dtype).value());
  }
  return result;
}

std::string claim_message(const Config& config, std::vector<TensorInfo> tensors,
                          const Family& family) {
  return message_of([&] { claim(headers_only(config, std::move(tensors)), family); });
}

}  // namespace moue::test
