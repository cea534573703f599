// WeightFile: one of two forms, and reading through strides over both.
#include "moue/weight_file.h"

#include "checkpoint/floats.h"
#include "checkpoint/pickle_file.h"
#include "checkpoint/strided.h"
#include "core/text.h"
#include "moue/error.h"

#include <stdexcept>
#include <string>
#include <variant>

namespace moue {
namespace fs = std::filesystem;
namespace {

using Form = std::variant<SafetensorsFile, PickleFile>;

Form open_form(const fs::path& file) {
  if (format_of(file) == WeightFormat::PyTorch) return Form(std::in_place_type<PickleFile>, file);
  return Form(std::in_place_type<SafetensorsFile>, file);
}

}  // namespace

struct WeightFile::State {
  Form form;
  const SafetensorsFile* safetensors() const { return std::get_if<SafetensorsFile>(&form); }
  const PickleFile* pickle() const { return std::get_if<PickleFile>(&form); }
};

WeightFile::WeightFile(const fs::path& file)
    : state_(std::make_shared<const State>(State{open_form(file)})) {}

const fs::path& WeightFile::path() const {
  return std::visit([](const auto& form) -> const fs::path& { return form.path(); }, state_->form);
}

uint64_t WeightFile::size() const {
  return std::visit([](const auto& form) { return form.size(); }, state_->form);
}

bool WeightFile::is_safetensors() const { return state_->safetensors() != nullptr; }

const std::vector<TensorInfo>& WeightFile::tensors() const {
  return std::visit(
      [](const auto& form) -> const std::vector<TensorInfo>& { return form.tensors(); },
      state_->form);
}

const TensorInfo* WeightFile::find(std::string_view name) const {
  return std::visit([&](const auto& form) { return form.find(name); }, state_->form);
}

const TensorInfo& WeightFile::at(std::string_view name) const {
  if (const TensorInfo* tensor = find(name)) return *tensor;
  std::vector<std::string> known;
  for (const TensorInfo& tensor : tensors()) known.push_back(in_quotes(tensor.name));
  fail("checkpoint", "{} has no tensor {}; it holds {}", printable(path().native(), 400),
       in_quotes(name), known.empty() ? "none" : join_some(known, 8));
}

void WeightFile::read(const TensorInfo& tensor, uint64_t from, std::span<std::byte> out) const {
  if (from > tensor.bytes || out.size() > tensor.bytes - from) {
    throw std::out_of_range("WeightFile::read beyond the end of " + tensor.name);
  }
  const auto read_at = [this](uint64_t offset, std::span<std::byte> bytes) {
    std::visit([&](const auto& form) { form.read_at(offset, bytes); }, state_->form);
  };
  if (!tensor.strided) return read_at(tensor.offset + from, out);
  const auto width = static_cast<uint64_t>(dtype_bits(tensor.dtype)) / 8;
  read_strided(*tensor.strided, tensor.offset, width, from, out, read_at);
}

std::vector<std::byte> WeightFile::read(const TensorInfo& tensor) const {
  std::vector<std::byte> bytes(tensor.bytes);
  read(tensor, 0, bytes);
  return bytes;
}

std::vector<double> WeightFile::values(const TensorInfo& tensor) const {
  if (auto values = to_doubles(tensor.dtype, read(tensor))) return std::move(*values);
  fail("checkpoint", "{}: tensor {} is {}, wanted F64, F32, F16, BF16 or integers",
       printable(path().native(), 400), in_quotes(tensor.name), dtype_name(tensor.dtype));
}

}  // namespace moue
