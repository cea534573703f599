// What a source is, in 64 digits: config, tensor table and the first bytes of every router.
#include "core/sha256.h"
#include "moue/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <string>

namespace moue {

namespace {

constexpr uint64_t kRouterBytes = 4096;

// Each piece is preceded by its length, so that no two sequences of pieces run together.
void add(Sha256& hash, std::string_view text) {
  const std::string piece = fmt::format("{}:{}", text.size(), text);
  hash.update(std::as_bytes(std::span(piece)));
}

}  // namespace

std::string fingerprint(const Checkpoint& source, const Family& family) {
  Sha256 hash;
  add(hash, source.config().text());
  std::vector<const TensorInfo*> tensors;
  for (const TensorInfo& tensor : source.tensors()) tensors.push_back(&tensor);
  std::sort(tensors.begin(), tensors.end(),
            [](const auto* a, const auto* b) { return a->name < b->name; });
  for (const TensorInfo* tensor : tensors) {
    add(hash, fmt::format("{} {} {}", tensor->name, dtype_name(tensor->dtype),
                          shape_text(tensor->shape)));
  }
  const Claims claims = claim(source, family);
  if (source.files().empty()) return hash.hex();  // headers alone
  for (int64_t layer : family.spec(source.config()).moe_layers()) {
    const TensorInfo& router = claims.at(Role::Router, layer);
    std::vector<std::byte> bytes(std::min(kRouterBytes, router.bytes));
    source.read(router, 0, bytes);
    hash.update(bytes);
  }
  return hash.hex();
}

}  // namespace moue
