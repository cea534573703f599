// The model card: what it carries over from the parent's, what it says, and what it will not carry.
#include "convert/card.h"

#include <catch2/catch.hpp>

#include "moue/plan.h"
#include "support/messages.h"

using namespace moue;
using namespace moue::test;

namespace {

const char* const kParent =
    "---\r\n"
    "license: other\n"
    "license_name: some-terms\n"
    "license_link: https://example.org/terms\n"
    "language:\n"
    "- en\n"
    "- de\n"
    "tags:\n"
    "- chat\n"
    "model-index:\n"
    "- name: x\n"
    "---\n"
    "# Parent\n"
    "license: not this one\n";

struct Made {
  Checkpoint source = open_checkpoint("tests/golden/families/qwen3_moe");
  const Family& family = family_of(source.config());
  ModelSpec spec = family.spec(source.config());
  Plan plan = make_plan(source, family, nullptr, {.topology = "half_staggered"});
  std::string card(const std::string& parent, const std::string& base = "") const {
    return card_text(
        {plan.pool, spec, "qwen3_moe", base, parent, true, "linked", 120, 5000000, 30, 4096});
  }
};

}  // namespace

TEST_CASE("licence and language are carried over from the parent's front matter") {
  const std::vector<std::string> blocks = carried_front_matter(kParent);
  REQUIRE(blocks.size() == 4);
  CHECK(blocks[0] == "license: other\n");
  CHECK(blocks[1] == "license_name: some-terms\n");
  CHECK(blocks[3] == "language:\n- en\n- de\n");
  CHECK(carried_front_matter("# no front matter\nlicense: mit\n").empty());
  CHECK(carried_front_matter("---\nlicense: mit\n").empty());  // never closed
  CHECK(carried_front_matter("").empty());
}

TEST_CASE("what is no plain line is left behind") {
  CHECK(carried_front_matter("---\nlicense: m\x01it\n---\n").empty());
  CHECK(carried_front_matter("---\nlicense: \xff\n---\n").empty());
  CHECK(carried_front_matter("---\nlicense: " + std::string(600, 'x') + "\n---\n").empty());
  std::string many = "---\nlicense: mit\n";
  for (int i = 0; i < 300; ++i) many += "- x\n";
  CHECK(carried_front_matter(many + "---\n").empty());
  CHECK(carried_front_matter("---\nlicense_other: mit\n---\n").empty());
}

TEST_CASE("a card says what the model is, how to check it and how to go back") {
  Made made;
  const std::string card = made.card(kParent, "org/parent");
  CHECK(card.starts_with("---\nlicense: other\nlicense_name: some-terms\n"));
  CHECK(contains(card, "- de\nbase_model: org/parent\ntags:\n- mixture-of-experts\n- moue\n---\n"));
  CHECK(contains(card, "# A mixture of universal experts made of org/parent"));
  CHECK(contains(card, "computes what its source computes, bit for bit"));
  CHECK(contains(card, "![Who sees whom](plan.svg)"));
  CHECK(contains(card, "| of the source, linked | 120 | "));
  CHECK(contains(card, "moue convert DIR --layout export"));
  CHECK(contains(card, "The licence is the source's.\nIts own card is `README.parent.md`."));
  CHECK_FALSE(contains(card, "model-index"));

  made.plan.pool.state = PoolState::Trained;
  const std::string trained = made.card("");
  CHECK(contains(trained, "made of a qwen3_moe model"));
  CHECK(contains(trained, "names no licence: ask its owner"));
  CHECK_FALSE(contains(trained, "README.parent.md"));
  CHECK_FALSE(contains(trained, "--layout export"));
  CHECK_FALSE(contains(trained, "base_model"));
}
