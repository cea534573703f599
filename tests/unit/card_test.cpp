// The model card: what it carries over from the parent's, what it says, and what it will not carry.
#include "convert/card.h"

#include <catch2/catch.hpp>

#include "moue/convert.h"
#include "moue/plan.h"
#include "moue/validate.h"
#include "support/files.h"
#include "support/messages.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

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
        {plan.pool, spec, "qwen3_moe", base, parent, "", true, "", 120, 5000000, 30, 4096});
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
  CHECK(contains(card, "| the source's | 120 | "));
  CHECK(contains(card, "moue convert DIR --layout export"));
  CHECK(contains(card, "The licence is the source's.\nIts own card is `README.parent.md`."));
  CHECK_FALSE(contains(card, "model-index"));

  made.plan.pool.state = PoolState::Trained;
  const std::string trained = made.card("");
  CHECK(contains(trained, "made of a qwen3_moe model"));
  CHECK(contains(trained, "The source names no licence: ask its owner"));
  CHECK_FALSE(contains(trained, "README.parent.md"));
  CHECK_FALSE(contains(trained, "--layout export"));
  CHECK_FALSE(contains(trained, "base_model"));
}

namespace {

// Convert with options, from an ordinary model (a plan is made) or a MoUE.
void written(const fs::path& from, const fs::path& to, const ConvertOptions& options) {
  const Checkpoint source = open_checkpoint(from);
  if (!needs_plan(source, options)) return void(convert(source, to, options));
  const Plan plan =
      make_plan(source, family_of(source.config()), nullptr, {.topology = "half_staggered"});
  convert(source, plan, nullptr, to, options);
}

ConvertOptions layout(const char* name) {
  ConvertOptions options;
  options.layout = name;
  return options;
}

}  // namespace

TEST_CASE("a card stands in every layout of a MoUE, and the parent's comes back with an export") {
  const ScratchDir scratch;
  const fs::path source = "examples/tiny-mixtral";
  ConvertOptions named = layout("linked");
  named.base_model = "org/tiny";
  written(source, scratch / "linked", named);
  written(scratch / "linked", scratch / "packed", layout("packed"));
  written(scratch / "packed", scratch / "export", layout("export"));
  const std::string card = file_text(scratch / "linked/README.md");
  CHECK(contains(card, "base_model: org/tiny"));
  CHECK(contains(card,
                 "| the source's | " + std::to_string(open_checkpoint(source).tensors().size())));
  CHECK(contains(file_text(scratch / "linked/plan.svg"), "<svg"));
  CHECK(file_text(scratch / "packed/README.md") == card);
  CHECK(file_text(scratch / "packed/plan.svg") == file_text(scratch / "linked/plan.svg"));
  const std::string parent = file_text(source / "README.md");
  CHECK(file_text(scratch / "packed/README.parent.md") == parent);
  CHECK(file_text(scratch / "export/README.md") == parent);
  CHECK_FALSE(fs::exists(scratch / "export/plan.svg"));
  CHECK_FALSE(fs::exists(scratch / "export/README.parent.md"));
  CHECK(validate_directory(scratch / "packed").passed());

  ConvertOptions cast = layout("packed");
  cast.dtype = "float32";
  written(scratch / "linked", scratch / "cast", cast);
  CHECK(contains(file_text(scratch / "cast/README.md"), "rounded to float32"));
}

TEST_CASE("a card that somebody has written into is kept") {
  const ScratchDir scratch;
  written("tests/golden/families/mixtral", scratch / "linked", layout("linked"));
  const std::string edited = file_text(scratch / "linked/README.md") + "Ours.\n";
  fs::remove(scratch / "linked/README.md");
  write_text(scratch / "linked/README.md", edited);
  written(scratch / "linked", scratch / "packed", layout("packed"));
  CHECK(file_text(scratch / "packed/README.md") == edited);
}

TEST_CASE("names that a card needs, and names that are none") {
  const ScratchDir scratch;
  copy_tree("tests/golden/families/mixtral", scratch / "source");
  scratch.write("source/plan.svg", "mine");
  scratch.write("source/README.parent.md", "mine");
  CHECK(contains(message_of([&] { written(scratch / "source", scratch / "o", layout("linked")); }),
                 "has README.parent.md, plan.svg, whose name the result needs; rename it"));
  for (const char* name : {"x", "a/b/c", "/b", "a/", "a/b\nlicense: mit", "a b/c"}) {
    ConvertOptions options = layout("linked");
    options.base_model = name;
    CHECK(contains(
        message_of([&] { written("tests/golden/families/mixtral", scratch / "o", options); }),
        "[convert] base_model is "));
  }
}
