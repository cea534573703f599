// Several sources in turns, and rows of one document each.
#include "tokens/turns.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "tokens/documents.h"

namespace moue {

TEST_CASE("one source has every row", "[unit][tokens]") {
  const Turns turns({0.3});
  for (const uint64_t row : {uint64_t{0}, uint64_t{1}, uint64_t{10'000}, uint64_t{1} << 40}) {
    CHECK(turns.at(row).source == 0);
    CHECK(turns.at(row).number == row);
  }
  CHECK(turns.share(0) == 1);
}

TEST_CASE("turns are as even as weights allow, in every stretch of rows", "[unit][tokens]") {
  const std::vector<double> weights =
      GENERATE(std::vector<double>{3, 1}, std::vector<double>{1, 1, 1},
               std::vector<double>{0.62, 0.3, 0.08}, std::vector<double>{1, 1e-6, 40, 7});
  const Turns turns(weights);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<uint64_t> seen(weights.size());
  for (uint64_t row = 0; row < 3 * Turns::kRound; ++row) {
    const Turns::Turn turn = turns.at(row);
    // A source's own rows come in order, none left out, none twice.
    REQUIRE(turn.number == seen[turn.source]);
    ++seen[turn.source];
    for (size_t source = 0; source < weights.size(); ++source) {
      const double due = turns.share(source) * static_cast<double>(row + 1);
      REQUIRE(std::abs(static_cast<double>(seen[source]) - due) < 2);
    }
  }
  for (size_t source = 0; source < weights.size(); ++source) {
    CHECK(seen[source] >= 3);
    CHECK(turns.share(source) ==
          Approx(weights[source] / total).margin(2.0 / static_cast<double>(Turns::kRound)));
  }
}

TEST_CASE("rows of documents cover each target once and none between documents", "[unit][tokens]") {
  const std::vector<uint64_t> bounds = {0, 3, 3, 10, 11, 25};
  const int64_t length = GENERATE(1, 4, 13, 100);
  const DocumentRows rows(bounds, length);
  CHECK(rows.documents() == 3);  // an empty one and one of a single token have no target
  CHECK(rows.targets() == 2 + 6 + 13);
  std::vector<int> targeted(26);
  for (uint64_t row = 0; row < rows.size(); ++row) {
    const DocumentRows::Row place = rows.row(row);
    REQUIRE(place.targets >= 1);
    REQUIRE(place.targets <= length);
    for (int64_t i = 1; i <= place.targets; ++i) ++targeted[place.position + i];
  }
  for (uint64_t token = 0; token < 25; ++token) {
    const bool first = std::find(bounds.begin(), bounds.end(), token) != bounds.end();
    CHECK(targeted[token] == (first ? 0 : 1));
  }
  if (length == 4) {
    CHECK(rows.size() == 7);
    CHECK(rows.row(2).position == 7);
    CHECK(rows.row(2).targets == 2);
  }
  CHECK(DocumentRows({0, 1}, length).size() == 0);
}

}  // namespace moue
