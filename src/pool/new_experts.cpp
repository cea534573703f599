// New experts: copies of donors, gathered from wherever the source keeps them.
#include "pool/new_experts.h"

#include "checkpoint/floats.h"
#include "moue/error.h"

#include <cstring>

namespace moue {

namespace {

// Unpacks quantised numbers into BF16.
void read_unpacked(const Checkpoint& source, const Slice& rows, std::span<std::byte> out) {
  std::vector<float> values(static_cast<size_t>(rows.rows * rows.columns));
  read_slice(source, rows, values);
  from_floats(Dtype::BF16, values, out);
}

// Copies elements as they are, however they are strewn.
void read_elements(const Checkpoint& source, const Slice& rows, std::span<std::byte> out) {
  const auto width = static_cast<int64_t>(dtype_bits(rows.tensor->dtype) / 8);
  const auto begin = static_cast<uint64_t>(rows.offset * width);
  if (rows.is_contiguous()) return source.read(*rows.tensor, begin, out);
  const int64_t span =
      (rows.rows - 1) * rows.row_stride + (rows.columns - 1) * rows.column_stride + 1;
  std::vector<std::byte> bytes(static_cast<size_t>(span * width));
  source.read(*rows.tensor, begin, bytes);
  std::byte* to = out.data();
  for (int64_t row = 0; row < rows.rows; ++row) {
    for (int64_t column = 0; column < rows.columns; ++column, to += width) {
      const int64_t at = row * rows.row_stride + column * rows.column_stride;
      std::memcpy(to, &bytes[static_cast<size_t>(at * width)], static_cast<size_t>(width));
    }
  }
}

}  // namespace

bool holds_weights(Dtype dtype) {
  return dtype == Dtype::F32 || dtype == Dtype::F16 || dtype == Dtype::BF16 || dtype == Dtype::F64;
}

uint64_t NewTensor::row_bytes() const {
  const int64_t columns = shape.size() > 1 ? shape[1] : 1;
  return static_cast<uint64_t>(columns) * static_cast<uint64_t>(dtype_bits(dtype)) / 8;
}

std::vector<NewTensor> new_tensors(const Claims& source, const Pool& pool, const ModelSpec& spec) {
  std::vector<NewTensor> result;
  for (int64_t j = 0; j < pool.num_new(); ++j) {
    const Home donor = pool.home[pool.num_source() + j];
    for (ExpertTensor& part : expert_tensors(j, spec)) {
      const auto from = source.slice(part.role, pool.moe_layers[donor.layer], donor.expert);
      if (!from) {
        fail("pool", "expert {} of layer {} has no tensor of role {}, wanted one to copy",
             donor.expert, pool.moe_layers[donor.layer], role_name(part.role));
      }
      const bool is_plain = from->packing == Packing::Plain && holds_weights(from->tensor->dtype);
      const Dtype dtype = is_plain ? from->tensor->dtype : Dtype::BF16;
      result.push_back({std::move(part.name), dtype, std::move(part.shape), donor, *from});
    }
  }
  return result;
}

void read_rows(const Checkpoint& source, const NewTensor& tensor, int64_t first, int64_t count,
               std::span<std::byte> out) {
  Slice rows = tensor.from;
  rows.offset += first * rows.row_stride;
  rows.rows = count;
  if (rows.packing == Packing::Plain && tensor.dtype == rows.tensor->dtype) {
    read_elements(source, rows, out);
  } else {
    read_unpacked(source, rows, out);
  }
}

}  // namespace moue
