// Fuzzes safetensors files: header as JSON, offsets put right now and then, so that deep checks are
// reached too.
#include <nlohmann/json.hpp>

#include <cstring>

#include "checkpoint/header.h"
#include "fuzz/fuzz.h"
#include "fuzz/json_mutator.h"
#include "moue/weight_file.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

namespace {

using namespace moue;
using Json = nlohmann::ordered_json;

std::string file_of(const std::string& header, std::string_view data) {
  const uint64_t size = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &size, 8);
  return file + header + std::string(data);
}

// Offsets as the shapes ask for, data to match.
std::string mended(const std::string& header) {
  Json json = Json::parse(header, nullptr, false);
  if (!json.is_object()) return file_of(header, "");
  uint64_t at = 0;
  for (auto& [name, entry] : json.items()) {
    if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string()) continue;
    const auto dtype = dtype_of(entry["dtype"].get_ref<const std::string&>());
    if (!dtype || !entry.contains("shape") || !entry["shape"].is_array()) continue;
    std::vector<int64_t> shape;
    for (const Json& size : entry["shape"]) {
      if (size.is_number_unsigned()) shape.push_back(size.get<int64_t>());
    }
    const uint64_t bytes = std::min<uint64_t>(tensor_bytes(*dtype, shape).value_or(0), 1 << 16);
    entry["data_offsets"] = {at, at + bytes};
    at += bytes;
  }
  return file_of(json.dump(-1, ' ', false, Json::error_handler_t::replace), std::string(at, 'd'));
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed) {
  fuzz::Random random(seed);
  if (size < 10 || random() % 8 == 0) return LLVMFuzzerMutate(data, size, most);
  const std::string_view all = fuzz::text_of(data, size);
  uint64_t length = 0;
  std::memcpy(&length, data, 8);
  length = std::min<uint64_t>(length, size - 8);
  const std::string header = fuzz::mutate_json(std::string(all.substr(8, length)), random);
  const std::string file =
      random() % 2 == 0 ? mended(header) : file_of(header, all.substr(8 + length));
  const size_t taken = std::min(file.size(), most);
  std::memcpy(data, file.data(), taken);
  return taken;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fuzz::attempt([&] {
    const SafetensorsFile file(fuzz::as_file(fuzz::text_of(data, size)));
    uint64_t bytes = file.data_offset();
    for (const TensorInfo& tensor : file.tensors()) {
      bytes += file.read(tensor).size();
      fuzz::require(file.find(tensor.name) == &tensor, "a tensor is found by its name");
    }
    fuzz::require(bytes == size, "tensors tile the data");
  });
}
