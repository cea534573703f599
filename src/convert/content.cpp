// Content: every tensor of a result, and where its bytes come from.
#include "convert/content.h"

#include "checkpoint/floats.h"
#include "checkpoint/header.h"
#include "core/text.h"
#include "moue/error.h"

#include <algorithm>
#include <cmath>

namespace moue {

namespace {

constexpr uint64_t kCastBytes = uint64_t{256} << 10;  // of the result, cast at a time

uint64_t width_of(Dtype dtype) { return static_cast<uint64_t>(dtype_bits(dtype)) / 8; }

// Reads whole granules into `out` and cuts off what was not asked for at both ends.
template <class Read>
void read_granules(uint64_t granule, uint64_t from, std::span<std::byte> out, Read read) {
  std::vector<std::byte> edge;
  while (!out.empty()) {
    const uint64_t inside = from % granule;
    uint64_t count = out.size() / granule * granule;
    if (inside == 0 && count > 0) {
      read(from / granule, out.first(count));
    } else {
      count = std::min<uint64_t>(granule - inside, out.size());
      edge.resize(granule);
      read(from / granule, std::span(edge));
      std::ranges::copy(std::span(edge).subspan(inside, count), out.begin());
    }
    from += count;
    out = out.subspan(count);
  }
}

// A number of the source that the new type cannot hold.
void check_range(const Part& part, std::span<const float> values, std::span<const std::byte> out,
                 uint64_t first) {
  std::vector<float> back(values.size());
  to_floats(part.dtype, out, back);
  for (size_t i = 0; i < back.size(); ++i) {
    if (!std::isinf(back[i]) || std::isinf(values[i])) continue;
    fail("convert", "{} holds {} at index {}, too large for {}; choose a wider --dtype",
         printable(part.name), values[i], first + i, dtype_name(part.dtype));
  }
}

}  // namespace

Content::Content(const Checkpoint& source, const Claims& claims, std::optional<Dtype> dtype)
    : source_(source), claims_(claims), dtype_(dtype) {
  if (dtype_ && claims.is_packed()) {
    fail(
        "convert",
        "{} holds weights that are packed ({}), which no --dtype applies to; leave it out and they "
        "are copied as they are",
        source.directory().string(), claims.form());
  }
  parts_.reserve(source.tensors().size());
}

Dtype Content::dtype_of(uint32_t tensor) const {
  const TensorInfo& info = source_.tensors()[tensor];
  if (!dtype_ || !holds_weights(info.dtype)) return info.dtype;
  const Row* row = claims_.of_tensors()[tensor].row;
  if (row == nullptr) return is_expert_tensor(info.name) ? *dtype_ : info.dtype;
  const bool stays = row->role == Role::RouterCorrection || row->role == Role::Ignored;
  return stays ? info.dtype : *dtype_;
}

void Content::add_source(uint32_t tensor, std::string name) {
  const TensorInfo& info = source_.tensors()[tensor];
  const Dtype dtype = dtype_of(tensor);
  const uint64_t bytes =
      dtype == info.dtype ? info.bytes : info.bytes / width_of(info.dtype) * width_of(dtype);
  std::string_view kept = info.name;
  if (name != info.name) kept = names_.emplace_back(std::move(name));
  parts_.push_back({kept, dtype, info.shape, bytes, Part::From::Source, tensor});
}

void Content::drop(uint32_t tensor, std::string why) {
  dropped_[source_.tensors()[tensor].name] = std::move(why);
}

void Content::add_new_experts(std::vector<NewTensor> tensors) {
  experts_ = std::move(tensors);
  for (uint32_t i = 0; i < experts_.size(); ++i) {
    const NewTensor& tensor = experts_[i];
    const Dtype dtype = dtype_.value_or(tensor.dtype);
    const uint64_t bytes = tensor.bytes() / width_of(tensor.dtype) * width_of(dtype);
    parts_.push_back({tensor.name, dtype, tensor.shape, bytes, Part::From::NewExpert, i});
  }
}

void Content::add_values(std::vector<PoolTensor> tensors, std::vector<MakeValues> makers) {
  pool_ = std::move(tensors);
  makers_ = std::move(makers);
  for (uint32_t i = 0; i < pool_.size(); ++i) {
    const uint64_t bytes = tensor_bytes(Dtype::F32, pool_[i].shape).value();
    parts_.push_back({pool_[i].name, Dtype::F32, pool_[i].shape, bytes, Part::From::Values, i});
  }
}

bool Content::is_cast(const Part& part) const {
  if (part.from == Part::From::Source) return source_.tensors()[part.index].dtype != part.dtype;
  return part.from == Part::From::NewExpert && experts_[part.index].dtype != part.dtype;
}

uint64_t Content::bytes() const {
  uint64_t sum = 0;
  for (const Part& part : parts_) sum += part.bytes;
  return sum;
}

uint64_t Content::scratch_bytes() const {
  uint64_t most = 0;
  for (const Part& part : parts_) {
    if (part.from == Part::From::Values) most = std::max(most, part.bytes);
    if (part.from != Part::From::NewExpert) continue;
    const Slice& slice = experts_[part.index].from;
    const bool is_copied = slice.packing == Packing::Plain && slice.is_contiguous();
    // Gathered from all of the matrix, unpacked to float32 on the way.
    if (!is_copied)
      most = std::max<uint64_t>(most, 8 * static_cast<uint64_t>(slice.rows * slice.columns));
  }
  return most;
}

void Content::read(const Part& part, uint64_t from, std::span<std::byte> out) const {
  if (out.empty()) return;
  if (part.from == Part::From::Values) return read_values(part, from, out);
  if (is_cast(part)) return read_cast(part, from, out);
  if (part.from == Part::From::NewExpert) return read_new(part, from, out);
  source_.read(source_.tensors()[part.index], from, out);
}

void Content::read_cast(const Part& part, uint64_t from, std::span<std::byte> out) const {
  const bool is_new = part.from == Part::From::NewExpert;
  const Dtype stored = is_new ? experts_[part.index].dtype : source_.tensors()[part.index].dtype;
  const uint64_t to = width_of(part.dtype);
  std::vector<std::byte> bytes;
  std::vector<float> values;
  read_granules(to, from, out, [&](uint64_t first, std::span<std::byte> whole) {
    for (; !whole.empty(); whole = whole.subspan(std::min(kCastBytes, whole.size()))) {
      const auto piece = whole.first(std::min(kCastBytes, whole.size()));
      values.resize(piece.size() / to);
      bytes.resize(values.size() * width_of(stored));
      const uint64_t at = first * width_of(stored);
      if (is_new) {
        read_new(part, at, bytes);
      } else {
        source_.read(source_.tensors()[part.index], at, bytes);
      }
      to_floats(stored, bytes, values);
      from_floats(part.dtype, values, piece);
      check_range(part, values, piece, first);
      first += values.size();
    }
  });
}

void Content::read_new(const Part& part, uint64_t from, std::span<std::byte> out) const {
  const NewTensor& tensor = experts_[part.index];
  const Slice& slice = tensor.from;
  if (slice.packing == Packing::Plain && slice.is_contiguous()) {
    const uint64_t begin = static_cast<uint64_t>(slice.offset) * width_of(tensor.dtype);
    return source_.read(*slice.tensor, begin + from, out);
  }
  const std::lock_guard turn(turn_);
  read_granules(tensor.row_bytes(), from, out, [&](uint64_t row, std::span<std::byte> rows) {
    read_rows(source_, tensor, static_cast<int64_t>(row),
              static_cast<int64_t>(rows.size() / tensor.row_bytes()), rows);
  });
}

void Content::read_values(const Part& part, uint64_t from, std::span<std::byte> out) const {
  const std::lock_guard turn(turn_);
  if (made_index_ != part.index) {
    made_index_ = UINT32_MAX;
    made_ = {};  // before the next one is there
    made_ = makers_[part.index]();
    made_index_ = part.index;
  }
  std::ranges::copy(std::as_bytes(std::span(made_)).subspan(from, out.size()), out.begin());
}

}  // namespace moue
