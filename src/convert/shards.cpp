// Pass one: which file holds which tensor, and every header, before a byte is read.
#include "convert/shards.h"

#include "checkpoint/header_text.h"

#include <fmt/format.h>

#include <algorithm>

namespace moue {

namespace {

constexpr uint64_t kPage = 4096;

Described described(const Part& part) { return {part.name, part.dtype, part.shape, part.bytes}; }

uint64_t padded(uint64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// Where each file begins.
std::vector<size_t> cut(std::span<const Part> parts, uint64_t most) {
  std::vector<size_t> begins;
  uint64_t header = 0, data = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const uint64_t entry = header_entry_bytes(described(parts[i]), data);
    if (begins.empty() || padded(header + entry) + data + parts[i].bytes > most) {
      begins.push_back(i);
      header = empty_header_bytes(plain_metadata());
      data = 0;
    }
    header += header_entry_bytes(described(parts[i]), data);
    data += parts[i].bytes;
  }
  return begins;
}

}  // namespace

Shard shard_of(const Content& content, size_t first, size_t last, std::string name) {
  Shard shard{std::move(name), {}, first, last - first, 0};
  std::vector<Described> tensors;
  for (size_t i = first; i < last; ++i) {
    tensors.push_back(described(content.parts()[i]));
    shard.bytes += content.parts()[i].bytes;
  }
  shard.header = header_text(tensors, plain_metadata(), kPage, shard.name);
  shard.bytes += shard.header.size();
  return shard;
}

std::vector<Shard> shards_of(const Content& content, size_t first, size_t last, uint64_t most,
                             const std::string& stem) {
  const std::vector<size_t> begins =
      cut(std::span(content.parts()).subspan(first, last - first), most);
  std::vector<Shard> shards;
  for (size_t i = 0; i < begins.size(); ++i) {
    const size_t end = i + 1 < begins.size() ? begins[i + 1] : last - first;
    shards.push_back(
        shard_of(content, first + begins[i], first + end,
                 fmt::format("{}-{:05}-of-{:05}.safetensors", stem, i + 1, begins.size())));
  }
  return shards;
}

void read_shard(const Content& content, const Shard& shard, uint64_t from,
                std::span<std::byte> out) {
  if (from < shard.header.size()) {
    const auto header = std::as_bytes(std::span(shard.header)).subspan(from);
    const size_t count = std::min(header.size(), out.size());
    std::ranges::copy(header.first(count), out.begin());
    from += count;
    out = out.subspan(count);
  }
  uint64_t begin = shard.header.size();  // of the part at hand
  for (size_t i = shard.first; i < shard.first + shard.count && !out.empty(); ++i) {
    const Part& part = content.parts()[i];
    if (from < begin + part.bytes) {
      const uint64_t count = std::min<uint64_t>(begin + part.bytes - from, out.size());
      content.read(part, from - begin, out.first(count));
      from += count;
      out = out.subspan(count);
    }
    begin += part.bytes;
  }
}

}  // namespace moue
