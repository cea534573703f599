// Matches names and shapes of tensors with the rows of a family.
#pragma once

#include "family/faults.h"
#include "moue/checkpoint.h"
#include "moue/family.h"

#include <array>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace moue {

/// A tensor's name with its numbers taken out: "model.layers.#.mlp.experts.#.up_proj.weight" and
/// {3, 1}.
struct ParsedName {
  std::string pattern;
  std::array<int64_t, 2> numbers = {-1, -1};
  size_t count = 0;
};
ParsedName parse_name(std::string_view name);

/// The form most of whose rows are found among these patterns; of equals the first.
const Form& form_of(const Family& family, const std::unordered_set<std::string>& patterns);

/// Whether a model of this spec has what the row is for.
bool stands(const Row& row, const ModelSpec& spec);
/// Whether it then must be there.
bool is_required(const Row& row, const ModelSpec& spec);
bool in_layer(Layers layers, const Geometry& geometry, int64_t layer);

class Matching {
 public:
  Matching(const Checkpoint& checkpoint, const Family& family, const ModelSpec& spec,
           const Form& form);

  /// The tensor's claim; without a row where it is a stranger.
  Claim match(const TensorInfo& tensor, const ParsedName& name);
  /// Lists what no tensor was matched with; enumerates only as far as faults are shown.
  void find_missing();
  void add_stranger(const TensorInfo& tensor);
  void add_shape(const TensorInfo& tensor, std::span<const int64_t> wanted);
  void add_fault(std::string text) { others_.push_back(std::move(text)); }
  void refuse_faults() const;

 private:
  // A row ready for matching: which of a name's numbers is the layer, which the expert.
  struct Matcher {
    const Row* row = nullptr;
    int layer_at = -1;
    int expert_at = -1;
    std::vector<int64_t> shape = {};
    bool required = true;
    std::vector<bool> seen = {};  ///< per layer and expert where the name has them
    int64_t count = 0;            ///< of those seen
  };

  void add(const Row& row, bool required);
  Claim fit(const Matcher& matcher, const ParsedName& name) const;
  Claim extra_layer(const ParsedName& name) const;
  std::vector<int64_t> layers_of(const Matcher& matcher) const;
  std::vector<int64_t> experts_of(const Matcher& matcher) const;
  size_t place(const Matcher& matcher, int64_t layer, int64_t expert) const;

  const Checkpoint& checkpoint_;
  const Family& family_;
  std::string_view form_;
  Geometry geometry_;
  std::vector<Matcher> matchers_;
  std::unordered_multimap<std::string, size_t> by_pattern_;
  Faults strangers_, missing_, shapes_;
  std::vector<std::string> others_;
};

}  // namespace moue
