// Families against lists of tensors that were not made from their rows: released models, and the
// checkpoints that transformers wrote.
#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <set>

#include "family/matching.h"
#include "moue/error.h"
#include "support/families.h"
#include "support/headers_only.h"

using namespace moue;
using namespace moue::test;

namespace fs = std::filesystem;

namespace {

std::vector<std::string> names_in(const char* folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_directory() || entry.path().extension() == ".txt")
      names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

const Form& form_named(const Family& family, std::string_view name) {
  for (const Form& form : family.forms) {
    if (form.name == name) return form;
  }
  throw std::logic_error("no form");
}

// The family without one of its rows.
Family without(const Family& family, std::string_view name) {
  Family result = family;
  const auto cut = [&](std::vector<Row>& rows) {
    std::erase_if(rows, [&](const Row& row) { return row.name == name; });
  };
  cut(result.tensors);
  for (Form& form : result.forms) cut(form.rows);
  return result;
}

}  // namespace

TEST_CASE("every family has a list of released tensors") {
  const std::vector<std::string> names = names_in("tests/golden/tensors");
  for (const Family& family : families())
    CHECK(std::count(names.begin(), names.end(), std::string(family.name)) == 1);
}

TEST_CASE("released tensor lists are claimed whole, and miss a row that is forgotten") {
  for (const std::string& name : names_in("tests/golden/tensors")) {
    const Released list = released(name);
    const Family& family = family_of(list.config);
    INFO(name);
    const Checkpoint checkpoint = headers_only(list.config, list.tensors);
    const Claims claims = claim(checkpoint, family);
    std::set<std::string_view> used;
    for (const Claim& c : claims.of_tensors()) {
      REQUIRE(c.row);
      used.insert(c.row->name);
    }
    const ModelSpec spec = family.spec(list.config);
    const Geometry geometry = geometry_of(spec);
    const Form& form = form_named(family, claims.form());
    for (const std::vector<Row>* rows : {&family.tensors, &form.rows}) {
      for (const Row& row : *rows) {
        if (row.layers == Layers::Dense && geometry.dense_width == 0) continue;
        if (stands(row, spec) && is_required(row, spec)) CHECK(used.contains(row.name));
        if (!used.contains(row.name) || list.tensors.size() > 10000) continue;
        INFO(row.name);
        CHECK(contains(claim_message(list.config, list.tensors, without(family, row.name)),
                       " without a row ("));
      }
    }
  }
}

TEST_CASE("released lists have as many tensors as the index of the release") {
  const auto count = [](const char* name) { return released(name).tensors.size(); };
  CHECK(count("mixtral") == 995);
  CHECK(count("qwen3_moe") == 18867);
  CHECK(count("deepseek_v3") == 91991);
  CHECK(count("qwen2_moe") == 4659);
  CHECK(count("olmoe") == 3219);
  CHECK(count("gpt_oss") == 459);
  CHECK(count("dbrx") == 323);
}

TEST_CASE("92,000 tensors are claimed in well under a second") {
  const Released list = released("deepseek_v3");
  const Checkpoint checkpoint = headers_only(list.config, list.tensors);
  const auto start = std::chrono::steady_clock::now();
  const Claims claims = claim(checkpoint, family_of(list.config));
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  CHECK(claims.of_tensors().size() == 91991);
  CHECK(claims.is_packed());
  CHECK(taken.count() < 1.0);
  size_t ignored = 0, scales = 0;
  for (const Claim& c : claims.of_tensors()) {
    ignored += c.row->role == Role::Ignored;
    scales += c.row->role == Role::Scale;
  }
  CHECK(ignored == 1564);  // layer 61
  CHECK(scales == 3 * (3 + 5) + 58 * (257 * 3 + 5));
}

TEST_CASE("checkpoints that transformers wrote are claimed whole") {
  const std::vector<std::string> cases = names_in("tests/golden/families");
  CHECK(cases.size() == 16);
  std::set<std::string_view> seen;
  for (const std::string& name : cases) {
    if (name == "make_families") continue;
    INFO(name);
    const Checkpoint checkpoint = open_checkpoint("tests/golden/families/" + name);
    const Family& family = family_of(checkpoint.config());
    seen.insert(family.name);
    const Claims claims = claim(checkpoint, family);
    CHECK(claims.form() == family.forms[0].name);
    CHECK_FALSE(claims.is_packed());
    std::set<std::string_view> rows;
    for (const Claim& c : claims.of_tensors()) {
      REQUIRE(c.row);
      rows.insert(c.row->name);
    }
    for (const std::string_view row : rows) {
      INFO(row);
      CHECK(contains(message_of([&] { claim(checkpoint, without(family, row)); }),
                     " without a row ("));
    }
  }
  CHECK(seen.size() == families().size());
}
