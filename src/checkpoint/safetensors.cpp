// SafetensorsFile: header checked when opened, tensors read on demand by positioned reads.
#include "moue/safetensors.h"

#include "checkpoint/floats.h"
#include "checkpoint/header.h"
#include "core/files.h"
#include "core/text.h"
#include "moue/error.h"

#include <array>
#include <bit>
#include <stdexcept>

namespace moue {
namespace fs = std::filesystem;
namespace {

static_assert(std::endian::native == std::endian::little,
              "tensors are read as they lie in the file");

}  // namespace

struct SafetensorsFile::State {
  InputFile input;
  uint64_t data_offset = 0;
  Header header;
};

SafetensorsFile::SafetensorsFile(const fs::path& file) {
  const std::string name = printable(file.native(), 400);
  State state{InputFile(file, "safetensors"), 0, {}};
  const uint64_t size = state.input.size();
  if (size < 8) {
    fail("safetensors", "{}: the file has {}, wanted at least the 8 of the header's length", name,
         counted(size, "byte"));
  }
  std::array<std::byte, 8> length_bytes{};
  state.input.read_at(0, length_bytes);
  const auto length = std::bit_cast<uint64_t>(length_bytes);
  if (length > kMostHeaderBytes) {
    fail("safetensors", "{}: the header's length is {}, wanted at most {}", name, length,
         kMostHeaderBytes);
  }
  if (length > size - 8) {
    fail("safetensors", "{}: the header's length is {}, only {} follow; is the file cut off?", name,
         length, counted(size - 8, "byte"));
  }
  std::string text(length, '\0');
  state.input.read_at(8, std::as_writable_bytes(std::span(text)));
  state.data_offset = 8 + length;
  state.header = parse_header(std::move(text), state.data_offset, size - state.data_offset, name);
  state_ = std::make_shared<const State>(std::move(state));
}

const fs::path& SafetensorsFile::path() const { return state_->input.path(); }
uint64_t SafetensorsFile::size() const { return state_->input.size(); }
uint64_t SafetensorsFile::data_offset() const { return state_->data_offset; }
const std::vector<TensorInfo>& SafetensorsFile::tensors() const { return state_->header.tensors; }
const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return state_->header.metadata;
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  return state_->header.names.find(tensors(), name);
}

const TensorInfo& SafetensorsFile::at(std::string_view name) const {
  if (const TensorInfo* tensor = find(name)) return *tensor;
  std::vector<std::string> known;
  for (const TensorInfo& tensor : tensors()) known.push_back(in_quotes(tensor.name));
  fail("safetensors", "{} has no tensor {}; it holds {}", printable(path().native(), 400),
       in_quotes(name), known.empty() ? "none" : join_some(known, 8));
}

void SafetensorsFile::read(const TensorInfo& tensor, uint64_t from,
                           std::span<std::byte> out) const {
  if (from > tensor.bytes || out.size() > tensor.bytes - from) {
    throw std::out_of_range("SafetensorsFile::read beyond the end of " + tensor.name);
  }
  state_->input.read_at(tensor.offset + from, out);
}

void SafetensorsFile::read_at(uint64_t offset, std::span<std::byte> out) const {
  state_->input.read_at(offset, out);
}

std::vector<std::byte> SafetensorsFile::read(const TensorInfo& tensor) const {
  std::vector<std::byte> bytes(tensor.bytes);
  read(tensor, 0, bytes);
  return bytes;
}

std::vector<double> SafetensorsFile::values(std::string_view name) const {
  const TensorInfo& tensor = at(name);
  if (auto values = to_doubles(tensor.dtype, read(tensor))) return std::move(*values);
  fail("safetensors", "{}: tensor {} is {}, wanted F64, F32, F16, BF16 or integers",
       printable(path().native(), 400), in_quotes(name), dtype_name(tensor.dtype));
}

}  // namespace moue
