// The header of a safetensors file as text: checked, padded so that tensor data starts aligned.
#include "checkpoint/header_text.h"

#include "checkpoint/header.h"
#include "core/text.h"
#include "moue/error.h"

#include <nlohmann/json.hpp>

#include <unordered_set>

namespace moue {
namespace {

using Json = nlohmann::json;
using Metadata = std::map<std::string, std::string>;

void check(std::span<const Described> tensors, const Metadata& metadata, const std::string& file) {
  std::unordered_set<std::string_view> names;
  for (const Described& tensor : tensors) {
    if (tensor.name == "__metadata__" || !is_utf8(tensor.name)) {
      fail("safetensors", "{}: a tensor cannot be named {}", file, in_quotes(tensor.name));
    }
    if (!names.insert(tensor.name).second) {
      fail("safetensors", "{}: tensor {} would stand twice", file, in_quotes(tensor.name));
    }
    const auto wanted = tensor_bytes(tensor.dtype, tensor.shape);
    if (!wanted || *wanted != tensor.bytes) {
      fail("safetensors", "{}: tensor {} has {}, {} of {} takes {}", file, in_quotes(tensor.name),
           counted(tensor.bytes, "byte"), printable(shape_text(tensor.shape)),
           dtype_name(tensor.dtype),
           wanted ? fmt::format("{}", *wanted) : "no whole number of them");
    }
  }
  for (const auto& [key, value] : metadata) {
    if (!is_utf8(key) || !is_utf8(value)) {
      fail("safetensors", "{}: metadata {} is not UTF-8", file, in_quotes(key));
    }
  }
}

std::string entry(const Described& tensor, uint64_t begin) {
  return fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                     Json(tensor.name).dump(), dtype_name(tensor.dtype),
                     fmt::join(tensor.shape, ","), begin, begin + tensor.bytes);
}

std::string opening(const Metadata& metadata) {
  return metadata.empty() ? "" : "{\"__metadata__\":" + Json(metadata).dump();
}

}  // namespace

const Metadata& plain_metadata() {
  static const Metadata metadata = {{"format", "pt"}};
  return metadata;
}

std::string header_text(std::span<const Described> tensors, const Metadata& metadata,
                        uint64_t alignment, const std::string& file) {
  check(tensors, metadata, file);
  std::string text = std::string(8, '\0') + opening(metadata);
  char separator = metadata.empty() ? '{' : ',';
  uint64_t begin = 0;
  for (const Described& tensor : tensors) {
    text += separator + entry(tensor, begin);
    separator = ',';
    begin += tensor.bytes;
  }
  text += separator == '{' ? "{}" : "}";
  text.resize((text.size() + alignment - 1) / alignment * alignment, ' ');
  const uint64_t length = text.size() - 8;
  if (length > kMostHeaderBytes) {
    fail("safetensors",
         "{}: the header would have {} bytes, wanted at most {}; write several files", file, length,
         kMostHeaderBytes);
  }
  for (size_t i = 0; i < 8; ++i) text[i] = static_cast<char>(length >> (8 * i));
  return text;
}

uint64_t empty_header_bytes(const Metadata& metadata) { return 10 + opening(metadata).size(); }

uint64_t header_entry_bytes(const Described& tensor, uint64_t begin) {
  return 1 + entry(tensor, begin).size();
}

}  // namespace moue
