// write_safetensors: one file, hashed while it is written, complete under its name or not there.
#include "checkpoint/header.h"
#include "core/files.h"
#include "core/sha256.h"
#include "core/text.h"
#include "moue/error.h"
#include "moue/safetensors.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <unordered_set>

namespace moue {
namespace {

using Json = nlohmann::json;

void check(std::span<const TensorView> tensors, const std::map<std::string, std::string>& metadata,
           const std::string& file) {
  std::unordered_set<std::string_view> names;
  for (const TensorView& tensor : tensors) {
    if (tensor.name == "__metadata__" || !is_utf8(tensor.name)) {
      fail("safetensors", "{}: a tensor cannot be named {}", file, in_quotes(tensor.name));
    }
    if (!names.insert(tensor.name).second) {
      fail("safetensors", "{}: tensor {} would stand twice", file, in_quotes(tensor.name));
    }
    const auto wanted = tensor_bytes(tensor.dtype, tensor.shape);
    if (!wanted || *wanted != tensor.bytes.size()) {
      fail("safetensors", "{}: tensor {} has {}, {} of {} takes {}", file, in_quotes(tensor.name),
           counted(tensor.bytes.size(), "byte"), printable(shape_text(tensor.shape)),
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

// The file's first bytes: length and header, padded with spaces so that data starts aligned.
std::string header_text(std::span<const TensorView> tensors,
                        const std::map<std::string, std::string>& metadata,
                        const std::string& file) {
  constexpr size_t kAlignment = 64;
  std::string text(8, '\0');
  char separator = '{';
  if (!metadata.empty()) {
    text += "{\"__metadata__\":" + Json(metadata).dump();
    separator = ',';
  }
  uint64_t begin = 0;
  for (const TensorView& tensor : tensors) {
    const uint64_t end = begin + tensor.bytes.size();
    text += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                        separator, Json(tensor.name).dump(), dtype_name(tensor.dtype),
                        fmt::join(tensor.shape, ","), begin, end);
    separator = ',';
    begin = end;
  }
  text += separator == '{' ? "{}" : "}";
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  const uint64_t length = text.size() - 8;
  if (length > kMostHeaderBytes) {
    fail("safetensors",
         "{}: the header would have {} bytes, wanted at most {}; write several files", file, length,
         kMostHeaderBytes);
  }
  for (size_t i = 0; i < 8; ++i) text[i] = static_cast<char>(length >> (8 * i));
  return text;
}

}  // namespace

FileDigest write_safetensors(const std::filesystem::path& file, std::span<const TensorView> tensors,
                             const std::map<std::string, std::string>& metadata) {
  constexpr size_t kPart = size_t{4} << 20;  // hashed while still in the cache
  const std::string name = printable(file.native(), 400);
  check(tensors, metadata, name);
  const std::string header = header_text(tensors, metadata, name);
  OutputFile output(file, "safetensors", OutputFile::Existing::Refuse);
  FileDigest digest;
  Sha256 sha;
  const auto put = [&](std::span<const std::byte> bytes) {
    for (; !bytes.empty(); bytes = bytes.subspan(std::min(kPart, bytes.size()))) {
      const auto part = bytes.first(std::min(kPart, bytes.size()));
      sha.update(part);
      output.write(part);
      digest.bytes += part.size();
    }
  };
  put(std::as_bytes(std::span(header)));
  for (const TensorView& tensor : tensors) put(tensor.bytes);
  output.commit();
  digest.sha256 = sha.hex();
  return digest;
}

}  // namespace moue
