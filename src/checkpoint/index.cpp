// Reading and writing of model.safetensors.index.json.
#include "checkpoint/index.h"

#include "core/json.h"
#include "core/text.h"
#include "moue/error.h"

#include <nlohmann/json.hpp>

namespace moue {
namespace {

using Json = nlohmann::ordered_json;

std::string seen(const Json& value) {
  return printable(value.dump(-1, ' ', false, Json::error_handler_t::replace), 60);
}

const Json& weight_map_of(const Json& json, const std::string& name) {
  if (!json.is_object()) fail("checkpoint", "{} is {}, wanted an object", name, seen(json));
  const auto it = json.find("weight_map");
  if (it == json.end()) fail("checkpoint", "{} has no weight_map", name);
  if (!it->is_object()) {
    fail("checkpoint", "{}: weight_map is {}, wanted an object of tensor and file", name,
         seen(*it));
  }
  if (it->empty()) fail("checkpoint", "{}: weight_map is empty, wanted at least one tensor", name);
  return *it;
}

}  // namespace

bool is_plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == name.npos;
}

Index read_index(const std::filesystem::path& file) {
  const std::string name = printable(file.native(), 400);
  const Json json = read_json(file, "checkpoint");
  const Json& map = weight_map_of(json, name);
  std::vector<std::string> bad;
  std::map<std::string_view, uint32_t> numbers;
  for (const auto& [tensor, value] : map.get_ref<const Json::object_t&>()) {
    const auto* text = value.get_ptr<const Json::string_t*>();
    if (text == nullptr) {
      bad.push_back(in_quotes(tensor) + " is in " + seen(value));
    } else if (!is_plain_name(*text)) {
      bad.push_back(in_quotes(tensor) + " is in " + in_quotes(*text));
    } else {
      numbers.emplace(*text, 0);
    }
  }
  if (!bad.empty()) {
    fail("checkpoint", "{}: {} of weight_map name no file inside the directory: {}", name,
         counted(bad.size(), "value"), join_some(bad));
  }
  Index index;
  for (auto& [shard, number] : numbers) {
    number = static_cast<uint32_t>(index.files.size());
    index.files.emplace_back(shard);
  }
  for (const auto& [tensor, value] : map.get_ref<const Json::object_t&>()) {
    index.weight_map.emplace_back(tensor, numbers.at(value.get_ref<const Json::string_t&>()));
  }
  return index;
}

std::string index_text(const Index& index, uint64_t total_parameters, uint64_t total_size) {
  Json map = Json::object();
  Json::object_t::Container& entries = map.get_ref<Json::object_t&>();
  for (const auto& [tensor, file] : index.weight_map)
    entries.emplace_back(tensor, index.files[file]);
  Json json;
  json["metadata"] = {{"total_parameters", total_parameters}, {"total_size", total_size}};
  json["weight_map"] = std::move(map);
  return json.dump(2) + "\n";
}

}  // namespace moue
