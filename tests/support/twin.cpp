// The same model on disk in another form of its family.
#include "support/twin.h"

#include "family/matching.h"
#include "moue/family.h"
#include "support/families.h"
#include "support/headers_only.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace moue::test {

namespace {

using Values = std::map<const TensorInfo*, std::vector<float>>;

void scatter(const std::vector<float>& from, const Slice& to, std::vector<float>& values) {
  for (int64_t row = 0; row < to.rows; ++row) {
    for (int64_t column = 0; column < to.columns; ++column) {
      values[static_cast<size_t>(to.offset + row * to.row_stride + column * to.column_stride)] =
          from[static_cast<size_t>(row * to.columns + column)];
    }
  }
}

// Every role of every layer and expert, read where the source has it and put where the twin does.
Values values_of_twin(const Checkpoint& source, const Checkpoint& twin, const Family& family) {
  const Claims from = claim(source, family), to = claim(twin, family);
  const ModelSpec spec = family.spec(source.config());
  Values values;
  for (const TensorInfo& tensor : twin.tensors()) {
    values[&tensor].resize(static_cast<size_t>(std::accumulate(
        tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>())));
  }
  for (int role = 0; role < static_cast<int>(Role::Scale); ++role) {
    for (int64_t layer = -1; layer < spec.layers; ++layer) {
      for (int64_t expert = -1; expert < spec.experts; ++expert) {
        const auto here = from.slice(static_cast<Role>(role), layer, expert);
        const auto there = to.slice(static_cast<Role>(role), layer, expert);
        if (!here || !there) continue;
        std::vector<float> part(static_cast<size_t>(here->rows * here->columns));
        read_slice(source, *here, part);
        scatter(part, *there, values.at(there->tensor));
      }
    }
  }
  return values;
}

}  // namespace

void write_twin(const Checkpoint& source, size_t form, const std::filesystem::path& directory) {
  const Family& family = family_of(source.config());
  std::vector<TensorInfo> tensors = tensors_of(family, source.config(), form, true);
  const auto in_form = tensors_of(family, source.config(), form, false);
  // Of the optional ones, those the source has.
  std::erase_if(tensors, [&](const TensorInfo& tensor) {
    return !source.find(tensor.name) &&
           std::none_of(in_form.begin(), in_form.end(),
                        [&](const auto& t) { return t.name == tensor.name; });
  });
  const Checkpoint twin = headers_only(source.config(), tensors);
  const Values values = values_of_twin(source, twin, family);
  std::vector<TensorView> views;
  for (const TensorInfo& tensor : twin.tensors()) {
    views.push_back(
        {tensor.name, Dtype::F32, tensor.shape, std::as_bytes(std::span(values.at(&tensor)))});
  }
  std::filesystem::create_directories(directory);
  write_safetensors(directory / "model.safetensors", views);
  std::filesystem::copy_file(source.directory() / "config.json", directory / "config.json");
}

}  // namespace moue::test
