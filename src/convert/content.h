// Content: every tensor of a result, in the order in which it is written, and where its bytes come
// from.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "convert/values.h"
#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/pool.h"
#include "pool/new_experts.h"

namespace moue {

/// A tensor of the result.
struct Part {
  enum class From : uint8_t { Source, NewExpert, Values };
  std::string_view name;
  Dtype dtype = Dtype::F32;
  std::span<const int64_t> shape;
  uint64_t bytes = 0;
  From from = From::Source;
  uint32_t index = 0;  ///< among the source's tensors, new experts' tensors or pool tensors
};

/// Borrows the source, and what makers of values borrow.
class Content {
 public:
  /// `dtype`: what float weights of the source become; nothing = as they are. Corrections of the
  /// choice, ignored tensors and those of the pool stay. Throws Error where weights are packed.
  Content(const Checkpoint& source, const Claims& claims, std::optional<Dtype> dtype);
  Content(const Content&) = delete;
  Content& operator=(const Content&) = delete;

  void add_source(uint32_t tensor) { add_source(tensor, source_.tensors()[tensor].name); }
  void add_source(uint32_t tensor, std::string name);
  /// Not written. The ledger says why.
  void drop(uint32_t tensor, std::string why);
  void add_new_experts(std::vector<NewTensor> tensors);
  void add_values(std::vector<PoolTensor> tensors, std::vector<MakeValues> makers);

  const Checkpoint& source() const { return source_; }
  const std::vector<Part>& parts() const { return parts_; }
  const std::map<std::string, std::string>& dropped() const { return dropped_; }
  bool is_cast(const Part& part) const;
  uint64_t bytes() const;  ///< of all parts
  /// Memory that reading may take beside the buffer it fills, on one thread.
  uint64_t scratch_bytes() const;

  /// Bytes of a part from `from` on; safe from several threads.
  void read(const Part& part, uint64_t from, std::span<std::byte> out) const;

 private:
  Dtype dtype_of(uint32_t tensor) const;
  void read_cast(const Part& part, uint64_t from, std::span<std::byte> out) const;
  void read_new(const Part& part, uint64_t from, std::span<std::byte> out) const;
  void read_values(const Part& part, uint64_t from, std::span<std::byte> out) const;

  const Checkpoint& source_;
  const Claims& claims_;
  std::optional<Dtype> dtype_;
  std::vector<Part> parts_;
  std::map<std::string, std::string> dropped_;
  std::deque<std::string> names_;  // of renamed tensors
  std::vector<NewTensor> experts_;
  std::vector<PoolTensor> pool_;
  std::vector<MakeValues> makers_;
  // Tensors that are made whole, or gathered from all over a matrix: one at a time.
  mutable std::mutex turn_;
  mutable std::vector<float> made_;
  mutable uint32_t made_index_ = UINT32_MAX;
};

/// Indices of the source's tensors in the order in which a whole model is written: embedding; each
/// layer's norms and attention, router, experts by number with their matrices together, shared
/// expert; last norm and head; what the model does not use; new experts; the pool.
std::vector<uint32_t> reading_order(const Checkpoint& source, const Claims& claims);

/// What a tensor is claimed as; block scales as the matrix they scale.
const Claim& claim_of(const Checkpoint& source, const Claims& claims, uint32_t tensor);

}  // namespace moue
