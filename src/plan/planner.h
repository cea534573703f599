// Planner: makes plans of one source under one set of options; what is costly is computed once.
#pragma once

#include "moue/plan.h"

#include <optional>
#include <string>
#include <vector>

namespace moue {

class Planner {
 public:
  /// Checks options and source. What it is given must outlive it.
  Planner(const Checkpoint& source, const Family& family, const Statistics* statistics,
          const PlanOptions& options);

  Plan make(const std::string& topology);
  /// From the statistics, else computed on Gaussian inputs.
  const Similarity& similarity();
  /// Whether similarity() is at hand without computing it.
  bool knows_similarity() const;
  const Checkpoint& source() const { return source_; }
  const Claims& claims() const { return claims_; }
  const ModelSpec& spec() const { return spec_; }

 private:
  Pool empty_pool();
  int64_t group_of_shift() const;
  Topology resolved(const std::string& name, std::vector<std::string>& notes) const;
  int64_t reach() const;
  void choose_slots(Plan& plan);
  void note_statistics(Plan& plan) const;

  const Checkpoint& source_;
  const Statistics* statistics_;
  PlanOptions options_;
  Claims claims_;
  ModelSpec spec_;
  std::string fingerprint_;
  std::optional<Similarity> similarity_;
  std::vector<Home> donors_;  // of the new experts
};

}  // namespace moue
