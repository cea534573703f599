// Donors: spread evenly, most used, or heaviest.
#include "plan/donors.h"

#include "moue/error.h"
#include "moue/log.h"
#include "plan/blocks.h"
#include "plan/parallel.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

namespace moue {

namespace {

Home home_of(int64_t physical, const ModelSpec& spec) {
  return {static_cast<int32_t>(physical / spec.experts),
          static_cast<int32_t>(physical % spec.experts)};
}

std::vector<Home> even_donors(const ModelSpec& spec, int64_t count) {
  std::vector<Home> donors;
  for (int64_t j = 0; j < count; ++j) {
    donors.push_back({static_cast<int32_t>(j * spec.num_moe_layers() / count),
                      static_cast<int32_t>(j % spec.experts)});
  }
  return donors;
}

// The `count` experts of highest merit, ties by lower number; all of them again where there are
// fewer. Neighbours on the ring are then neighbours in depth.
std::vector<Home> best_donors(const std::vector<double>& merit, const ModelSpec& spec,
                              int64_t count) {
  std::vector<int64_t> order(merit.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return merit[a] > merit[b]; });
  std::vector<int64_t> chosen;
  for (int64_t j = 0; j < count; ++j) chosen.push_back(order[j % order.size()]);
  std::ranges::sort(chosen);
  std::vector<Home> donors;
  for (const int64_t physical : chosen) donors.push_back(home_of(physical, spec));
  return donors;
}

std::vector<double> loads(const Statistics* statistics) {
  if (!statistics) {
    fail("plan",
         "donors are chosen by load, no statistics are given; run moue measure and name its file "
         "with --statistics");
  }
  std::vector<double> result;
  for (const std::vector<double>& layer : statistics->load)
    result.insert(result.end(), layer.begin(), layer.end());
  return result;
}

double log_norm(const Checkpoint& source, const Slice& matrix) {
  double squares = 0;
  for_each_block(source, matrix, [&](int64_t, int64_t, std::span<const float> values) {
    for (const float value : values) squares += static_cast<double>(value) * value;
  });
  return 0.5 * std::log(squares);
}

// Logarithm of the product of each expert's three Frobenius norms.
std::vector<double> weights(const Checkpoint& source, const Claims& claims, const ModelSpec& spec) {
  constexpr std::array kMatrices = {Role::ExpertGate, Role::ExpertUp, Role::ExpertDown};
  const std::vector<int64_t> layers = spec.moe_layers();
  std::vector<double> result(layers.size() * static_cast<size_t>(spec.experts));
  const auto count = static_cast<int64_t>(result.size());
  const auto weigh = [&](int64_t physical) {
    const Home home = home_of(physical, spec);
    for (const Role role : kMatrices) {
      const auto matrix = claims.slice(role, layers[home.layer], home.expert);
      result[physical] += log_norm(source, matrix.value());
    }
    if (result[physical] < HUGE_VAL) return;  // nor is it NaN
    fail("plan", "expert {} of layer {} holds numbers that are not finite; is the source damaged?",
         home.expert, layers[home.layer]);
  };
  in_parallel(count, weigh, [&](int64_t done) {
    log_progress(
        {"plan", static_cast<double>(done), static_cast<double>(count), "experts", "norms"});
  });
  return result;
}

}  // namespace

std::vector<Home> choose_donors(const Checkpoint& source, const Claims& claims,
                                const ModelSpec& spec, const Statistics* statistics,
                                const PlanOptions& options) {
  const std::string kind = !options.donors.empty() ? options.donors
                           : statistics != nullptr ? "load"
                                                   : "even";
  if (kind == "even") return even_donors(spec, options.experts);
  if (kind == "load") return best_donors(loads(statistics), spec, options.experts);
  if (kind == "weight") return best_donors(weights(source, claims, spec), spec, options.experts);
  fail("plan", "donors is '{}', wanted one of: even, load, weight", kind);
}

}  // namespace moue
