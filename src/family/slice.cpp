// Where a role's matrix lies inside the file, and its numbers as float32.
#include "checkpoint/floats.h"
#include "core/text.h"
#include "moue/checkpoint.h"
#include "moue/error.h"
#include "moue/family.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moue {

namespace {

constexpr int64_t kMxfp4Group = 32;  // elements that share a scale

int64_t elements_of(const TensorInfo& tensor, Packing packing) {
  const int64_t stored =
      std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>());
  return packing == Packing::Mxfp4 ? 2 * stored : stored;
}

bool is_of_expert(Role role) {
  switch (role) {
    case Role::ExpertGate:
    case Role::ExpertUp:
    case Role::ExpertDown:
    case Role::ExpertGateBias:
    case Role::ExpertUpBias:
    case Role::ExpertDownBias:
      return true;
    default:
      return false;
  }
}

// Rows and columns of what a role names, where it may be part of a tensor.
struct Size {
  int64_t rows = 0, columns = 0;
};

Size size_of(Role role, const Geometry& g) {
  switch (role) {
    case Role::ExpertGate:
    case Role::ExpertUp:
      return {g.expert_width, g.width};
    case Role::ExpertDown:
      return {g.width, g.expert_width};
    case Role::ExpertGateBias:
    case Role::ExpertUpBias:
      return {g.expert_width, 1};
    case Role::ExpertDownBias:
      return {g.width, 1};
    case Role::Query:
      return {g.heads * g.head_width, g.width};
    case Role::Key:
    case Role::Value:
      return {g.kv_heads * g.head_width, g.width};
    default:
      return {};
  }
}

// A role as rows of another: which one is first, and how far apart they lie.
struct Part {
  Role role, whole;
  int64_t first, step;
};

std::vector<Part> parts_of(const Geometry& g) {
  using enum Role;
  const int64_t F = g.expert_width, keys = g.kv_heads * g.head_width;
  const int64_t queries = g.heads * g.head_width;
  return {{ExpertGate, ExpertGateUp, 0, 1},
          {ExpertUp, ExpertGateUp, F, 1},
          {ExpertGate, ExpertGateUpPairs, 0, 2},
          {ExpertUp, ExpertGateUpPairs, 1, 2},
          {ExpertGateBias, ExpertGateUpBiasPairs, 0, 2},
          {ExpertUpBias, ExpertGateUpBiasPairs, 1, 2},
          {Query, QueryKeyValue, 0, 1},
          {Key, QueryKeyValue, queries, 1},
          {Value, QueryKeyValue, queries + keys, 1},
          {Key, KeyValue, 0, 1},
          {Value, KeyValue, keys, 1}};
}

std::vector<float> floats_of(const Checkpoint& checkpoint, const TensorInfo& tensor, int64_t first,
                             int64_t count) {
  if (!is_float(tensor.dtype)) {
    fail("family", "{} is stored as {}, wanted a float type", printable(tensor.name),
         dtype_name(tensor.dtype));
  }
  const int64_t width = dtype_bits(tensor.dtype) / 8;
  std::vector<std::byte> bytes(static_cast<size_t>(count * width));
  checkpoint.read(tensor, static_cast<uint64_t>(first * width), bytes);
  std::vector<float> values(static_cast<size_t>(count));
  to_floats(tensor.dtype, bytes, values);
  return values;
}

// Elements [first, first + count) of a tensor of packed FP4.
std::vector<float> mxfp4_of(const Checkpoint& checkpoint, const Slice& slice, int64_t first,
                            int64_t count) {
  const int64_t from = first / kMxfp4Group, until = (first + count - 1) / kMxfp4Group + 1;
  std::vector<std::byte> scales(static_cast<size_t>(until - from)),
      blocks(static_cast<size_t>(until - from) * kMxfp4Group / 2);
  checkpoint.read(*slice.scale, static_cast<uint64_t>(from), scales);
  checkpoint.read(*slice.tensor, static_cast<uint64_t>(from * kMxfp4Group / 2), blocks);
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = first + i - from * kMxfp4Group;
    const auto byte = static_cast<uint8_t>(blocks[static_cast<size_t>(at / 2)]);
    const auto scale = static_cast<uint8_t>(scales[static_cast<size_t>(at / kMxfp4Group)]);
    const float value = fp4_value(at % 2 == 0 ? byte & 15 : byte >> 4);
    // E8M0: the all-ones pattern is no number.
    values[static_cast<size_t>(i)] = scale == 255 ? NAN : std::ldexp(value, scale - 127);
  }
  return values;
}

void scale_blocks(const Checkpoint& checkpoint, const Slice& slice, std::span<float> values) {
  const int64_t width = slice.tensor->shape[1], first_row = slice.offset / width;
  const int64_t across = slice.scale->shape[1];
  const std::vector<float> factors =
      floats_of(checkpoint, *slice.scale, 0, slice.scale->shape[0] * across);
  for (int64_t row = 0; row < slice.rows; ++row) {
    const float* factor = factors.data() + (first_row + row) / slice.block_rows * across;
    float* value = values.data() + row * slice.columns;
    for (int64_t column = 0; column < slice.columns; ++column)
      value[column] *= factor[column / slice.block_columns];
  }
}

}  // namespace

// The part of `whole` that plays the role, nothing where the layer has no such tensor.
std::optional<Slice> Claims::part(Role whole, Role role, int64_t layer, int64_t expert) const {
  const Entry* found = entry(whole, layer, expert);
  const bool is_stacked = !found && is_of_expert(role);
  if (is_stacked) found = entry(whole, layer, -1);
  if (!found) return std::nullopt;
  Slice slice{.tensor = found->tensor,
              .scale = found->scale,
              .packing = found->row->packing,
              .block_rows = block_[0],
              .block_columns = block_[1]};
  if (slice.packing == Packing::Plain && slice.scale) slice.packing = Packing::BlockScaled;
  const int64_t elements = elements_of(*slice.tensor, slice.packing);
  const Size size = size_of(role, geometry_);
  slice.rows = size.rows;
  slice.columns = size.columns;
  if (size.rows == 0) {
    slice.columns = slice.tensor->shape.size() < 2 ? 1 : slice.tensor->shape.back();
    slice.rows = elements / slice.columns;
  }
  const int64_t all_rows =
      elements / slice.columns / (is_stacked ? geometry_.experts : 1);  // of this expert
  slice.offset = is_stacked ? expert * all_rows * slice.columns : 0;
  slice.row_stride = found->row->transposed ? 1 : slice.columns;
  slice.column_stride = found->row->transposed ? all_rows : 1;
  return slice;
}

std::optional<Slice> Claims::slice(Role role, int64_t layer, int64_t expert) const {
  // A stack of experts, or several roles in one tensor, is no matrix that the model multiplies
  // with.
  if (is_of_expert(role) && expert < 0) return std::nullopt;
  const std::vector<Part> parts = parts_of(geometry_);
  if (std::ranges::find(parts, role, &Part::whole) != parts.end()) return std::nullopt;
  if (std::optional<Slice> own = part(role, role, layer, expert)) return own;
  for (const Part& p : parts) {
    if (p.role != role) continue;
    std::optional<Slice> slice = part(p.whole, role, layer, expert);
    if (!slice) continue;
    slice->offset += p.first * slice->row_stride;
    slice->row_stride *= p.step;
    return slice;
  }
  return std::nullopt;
}

Slice whole_slice(const TensorInfo& tensor) {
  const int64_t columns = tensor.shape.size() < 2 ? 1 : tensor.shape.back();
  const int64_t elements = elements_of(tensor, Packing::Plain);
  return {.tensor = &tensor,
          .rows = columns == 0 ? 0 : elements / columns,
          .columns = columns,
          .row_stride = columns};
}

bool Claims::is_packed() const {
  return std::ranges::any_of(index_, [](const Entry& entry) { return entry.scale != nullptr; });
}

void read_slice(const Checkpoint& checkpoint, const Slice& slice, std::span<float> out) {
  if (slice.rows == 0 || slice.columns == 0) return;
  const int64_t count =
      (slice.rows - 1) * slice.row_stride + (slice.columns - 1) * slice.column_stride + 1;
  const std::vector<float> values = slice.packing == Packing::Mxfp4
                                        ? mxfp4_of(checkpoint, slice, slice.offset, count)
                                        : floats_of(checkpoint, *slice.tensor, slice.offset, count);
  for (int64_t row = 0; row < slice.rows; ++row) {
    for (int64_t column = 0; column < slice.columns; ++column) {
      out[static_cast<size_t>(row * slice.columns + column)] =
          values[static_cast<size_t>(row * slice.row_stride + column * slice.column_stride)];
    }
  }
  if (slice.packing == Packing::BlockScaled) scale_blocks(checkpoint, slice, out);
}

}  // namespace moue
