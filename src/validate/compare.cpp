// Bytes of two checkpoints side by side, also where one has them in another float type.
#include "validate/compare.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "checkpoint/floats.h"
#include "moue/family.h"
#include "pool/new_experts.h"

namespace moue {

namespace {

constexpr uint64_t kChunk = uint64_t{8} << 20;

uint64_t width_of(Dtype dtype) { return static_cast<uint64_t>(dtype_bits(dtype)) / 8; }

}  // namespace

std::optional<uint64_t> first_difference(uint64_t bytes, uint64_t granule, const ReadBytes& a,
                                         const ReadBytes& b) {
  const uint64_t piece = std::max<uint64_t>(1, kChunk / granule) * granule;
  std::vector<std::byte> left(std::min(bytes, piece)), right(left.size());
  for (uint64_t from = 0; from < bytes; from += left.size()) {
    const uint64_t count = std::min<uint64_t>(left.size(), bytes - from);
    const auto piece_a = std::span(left).first(count), piece_b = std::span(right).first(count);
    a(from, piece_a);
    b(from, piece_b);
    if (std::memcmp(piece_a.data(), piece_b.data(), count) == 0) continue;
    return from +
           static_cast<uint64_t>(std::ranges::mismatch(piece_a, piece_b).in1 - piece_a.begin());
  }
  return {};
}

ReadBytes cast_reader(ReadBytes read, Dtype from, Dtype to) {
  if (from == to) return read;
  return [read = std::move(read), from, to](uint64_t at, std::span<std::byte> out) {
    std::vector<float> values(out.size() / width_of(to));
    std::vector<std::byte> bytes(values.size() * width_of(from));
    read(at / width_of(to) * width_of(from), bytes);
    to_floats(from, bytes, values);
    from_floats(to, values, out);
  };
}

bool can_be_cast(Dtype from, Dtype to) {
  return from != to && holds_weights(from) && holds_weights(to) && to != Dtype::F64;
}

bool loses_bits(Dtype from, Dtype to) {
  const bool widens = to == Dtype::F32 && (from == Dtype::F16 || from == Dtype::BF16);
  return from != to && !widens;
}

Casts casts_of(const Checkpoint& original, const Checkpoint& result) {
  Casts casts;
  for (const TensorInfo& tensor : original.tensors()) {
    const TensorInfo* seen = result.find(tensor.name);
    if (seen == nullptr || !can_be_cast(tensor.dtype, seen->dtype)) continue;
    ++casts.tensors;
    casts.lossy = casts.lossy || loses_bits(tensor.dtype, seen->dtype);
    casts.types = dtype_name(seen->dtype);
  }
  return casts;
}

bool is_repeated_head(const Checkpoint& original, const TensorInfo& tensor) {
  const Family& family = family_of(original.config());
  if (!family.spec(original.config()).tied_head) return false;
  const Claims claims = claim(original, family);
  if (claims.find(Role::OutputHead) != &tensor) return false;
  const TensorInfo& embedding = claims.at(Role::Embedding);
  const auto reader = [&](const TensorInfo& of) -> ReadBytes {
    return [&](uint64_t from, std::span<std::byte> out) { original.read(of, from, out); };
  };
  return embedding.bytes == tensor.bytes && embedding.dtype == tensor.dtype &&
         !first_difference(tensor.bytes, 1, reader(embedding), reader(tensor));
}

}  // namespace moue
