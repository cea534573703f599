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

constexpr size_t kPart = size_t{4} << 20;  // hashed while still in the cache

// What the header says of a tensor.
struct Described {
  std::string_view name;
  Dtype dtype;
  std::span<const int64_t> shape;
  uint64_t bytes = 0;
};

std::vector<Described> described(std::span<const TensorView> tensors) {
  std::vector<Described> result;
  for (const TensorView& tensor : tensors)
    result.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.bytes.size()});
  return result;
}

std::vector<Described> described(std::span<const TensorStream> tensors) {
  std::vector<Described> result;
  for (const TensorStream& tensor : tensors) {
    const uint64_t bytes = tensor_bytes(tensor.dtype, tensor.shape).value_or(0);
    result.push_back({tensor.name, tensor.dtype, tensor.shape, bytes});
  }
  return result;
}

void check(std::span<const Described> tensors, const std::map<std::string, std::string>& metadata,
           const std::string& file) {
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

// The file's first bytes: length and header, padded with spaces so that data starts aligned.
std::string header_text(std::span<const Described> tensors,
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
  for (const Described& tensor : tensors) {
    const uint64_t end = begin + tensor.bytes;
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

// The file while it is written: every byte goes through the hash.
class Writer {
 public:
  Writer(const std::filesystem::path& file, std::span<const Described> tensors,
         const std::map<std::string, std::string>& metadata)
      : header_(checked_header(file, tensors, metadata)),
        output_(file, "safetensors", OutputFile::Existing::Refuse) {
    uint64_t bytes = header_.size();
    for (const Described& tensor : tensors) bytes += tensor.bytes;
    output_.reserve(bytes);
    put(std::as_bytes(std::span(header_)));
  }

  void put(std::span<const std::byte> bytes) {
    for (; !bytes.empty(); bytes = bytes.subspan(std::min(kPart, bytes.size()))) {
      const auto part = bytes.first(std::min(kPart, bytes.size()));
      sha_.update(part);
      output_.write(part);
      digest_.bytes += part.size();
    }
  }

  FileDigest finish() {
    output_.commit();
    digest_.sha256 = sha_.hex();
    return std::move(digest_);
  }

 private:
  static std::string checked_header(const std::filesystem::path& file,
                                    std::span<const Described> tensors,
                                    const std::map<std::string, std::string>& metadata) {
    const std::string name = printable(file.native(), 400);
    check(tensors, metadata, name);
    return header_text(tensors, metadata, name);
  }

  std::string header_;
  OutputFile output_;
  Sha256 sha_;
  FileDigest digest_;
};

// How much of a tensor is asked for at a time: whole rows, as many as fit a part.
uint64_t piece_of(const TensorStream& tensor, uint64_t bytes) {
  const int64_t rows = tensor.shape.empty() ? 1 : std::max<int64_t>(1, tensor.shape[0]);
  const uint64_t row = bytes / static_cast<uint64_t>(rows);
  return row == 0 ? kPart : std::max<uint64_t>(1, kPart / row) * row;
}

}  // namespace

FileDigest write_safetensors(const std::filesystem::path& file, std::span<const TensorView> tensors,
                             const std::map<std::string, std::string>& metadata) {
  Writer writer(file, described(tensors), metadata);
  for (const TensorView& tensor : tensors) writer.put(tensor.bytes);
  return writer.finish();
}

FileDigest stream_safetensors(const std::filesystem::path& file,
                              std::span<const TensorStream> tensors) {
  const std::vector<Described> all = described(tensors);
  Writer writer(file, all, {{"format", "pt"}});
  std::vector<std::byte> piece;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t most = piece_of(tensors[i], all[i].bytes);
    for (uint64_t from = 0; from < all[i].bytes; from += piece.size()) {
      piece.resize(std::min(most, all[i].bytes - from));
      tensors[i].read(from, piece);
      writer.put(piece);
    }
  }
  return writer.finish();
}

}  // namespace moue
