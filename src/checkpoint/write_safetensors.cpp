// write_safetensors: one file, hashed while it is written, complete under its name or not there.
#include "checkpoint/header.h"
#include "checkpoint/header_text.h"
#include "core/files.h"
#include "core/sha256.h"
#include "core/text.h"
#include "moue/error.h"
#include "moue/safetensors.h"

#include <algorithm>

namespace moue {
namespace {

constexpr uint64_t kAlignment = 64;        // of tensor data
constexpr size_t kPart = size_t{4} << 20;  // hashed while still in the cache

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

// The file while it is written: every byte goes through the hash.
class Writer {
 public:
  Writer(const std::filesystem::path& file, std::span<const Described> tensors,
         const std::map<std::string, std::string>& metadata)
      : header_(header_text(tensors, metadata, kAlignment, printable(file.native(), 400))),
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
  Writer writer(file, all, plain_metadata());
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
