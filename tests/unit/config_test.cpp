// Config: typed access, its messages, and that nothing of the source's text is lost.
#include "moue/config.h"

#include "moue/error.h"
#include "support/scratch.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

namespace moue {
namespace {

const Config& sample() {
  static const Config config = Config::parse(
      R"({"hidden_size": 24, "eps": 1e-6, "theta": 1000000, "tied": true, "name": "mixtral",
          "architectures": ["A", "B"], "layers": [0, 2], "nothing": null, "big": 9223372036854775808,
          "rope": {"theta": 5.5, "type": null, "deep": {"x": 1}}, "mixed": [1, "a"], "text": "24"})",
      "models/x/config.json");
  return config;
}

}  // namespace

TEST_CASE("config values come typed", "[config]") {
  const Config& config = sample();
  CHECK(config.integer("hidden_size") == 24);
  CHECK(config.integer({"absent", "hidden_size", "theta"}) == 24);
  CHECK(config.integer({"nothing", "theta", "hidden_size"}) == 1000000);
  CHECK(config.integer("rope.deep.x") == 1);
  CHECK(config.integer("absent", 7) == 7);
  CHECK(config.integer("nothing", 7) == 7);
  CHECK(config.integer({"absent", "hidden_size"}, 7) == 24);
  CHECK(config.real("eps") == 1e-6);
  CHECK(config.real("theta") == 1e6);
  CHECK(config.real("rope.theta", 1) == 5.5);
  CHECK(config.real({"rope.absent", "rope.theta"}, 1) == 5.5);
  CHECK(config.real({"rope.absent", "rope.type"}, 1) == 1);
  CHECK(config.boolean("tied", false));
  CHECK_FALSE(config.boolean("untied", false));
  CHECK(config.string("name") == "mixtral");
  CHECK(config.string("absent", "fallback") == "fallback");
  CHECK(config.strings("architectures") == std::vector<std::string>{"A", "B"});
  CHECK(config.strings("absent").empty());
  CHECK(config.integers("layers") == std::vector<int64_t>{0, 2});
  CHECK(config.integers("nothing").empty());
  CHECK(config.has("rope.theta"));
  CHECK_FALSE(config.has("rope.type"));
  CHECK_THROWS_WITH(config.has("hidden_size.x"),
                    Catch::EndsWith("hidden_size is 24, wanted an object"));
}

TEST_CASE("config faults name file, key, value and type", "[config]") {
  const Config& config = sample();
  const std::string start = "[config] models/x/config.json: ";
  CHECK_THROWS_WITH(config.integer("hiden_size"),
                    start + "no key 'hiden_size'; did you mean 'hidden_size'?");
  CHECK_THROWS_WITH(config.integer({"num_experts", "num_local_experts"}),
                    start + "no key 'num_experts' or 'num_local_experts'");
  CHECK_THROWS_WITH(config.integer("text"), start + "text is \"24\", wanted an integer of 64 bits");
  CHECK_THROWS_WITH(config.integer({"absent", "eps"}),
                    start + "eps is 1e-06, wanted an integer of 64 bits");
  CHECK_THROWS_WITH(config.integer("big", 1),
                    start + "big is 9223372036854775808, wanted an integer of 64 bits");
  CHECK_THROWS_WITH(config.integer("tied"), start + "tied is true, wanted an integer of 64 bits");
  CHECK_THROWS_WITH(config.real("name"), start + "name is \"mixtral\", wanted a number");
  CHECK_THROWS_WITH(config.real("tied", 1), start + "tied is true, wanted a number");
  CHECK_THROWS_WITH(config.real("absent"), start + "no key 'absent'");
  CHECK_THROWS_WITH(config.boolean("hidden_size", true),
                    start + "hidden_size is 24, wanted true or false");
  CHECK_THROWS_WITH(config.string("layers"), start + "layers is [0,2], wanted a string");
  CHECK_THROWS_WITH(config.string("nam"), start + "no key 'nam'; did you mean 'name'?");
  CHECK_THROWS_WITH(config.strings("layers"), start + "layers is [0,2], wanted a list of strings");
  CHECK_THROWS_WITH(config.strings("name"),
                    start + "name is \"mixtral\", wanted a list of strings");
  CHECK_THROWS_WITH(config.integers("mixed"),
                    start + "mixed is \"a\", wanted an integer of 64 bits");
  CHECK_THROWS_WITH(config.integers("hidden_size"),
                    start + "hidden_size is 24, wanted a list of integers");
}

TEST_CASE("a config must be an object, once and whole", "[config]") {
  const test::ScratchDir scratch;
  CHECK_THROWS_WITH(Config::parse("[]", "c.json"), "[config] c.json is [], wanted an object");
  CHECK_THROWS_WITH(Config::parse("{\"a\":1,\n\"a\":2}", "c.json"),
                    "[config] c.json: line 2, column 3: key 'a' stands twice in one object");
  CHECK_THROWS_WITH(Config::read(scratch / "config.json"),
                    "[config] " + (scratch / "config.json").native() + " is not there");
  CHECK_THROWS_WITH(Config::read(scratch.write("c", "{")), Catch::Contains("/c: line 1, column "));
  CHECK_THROWS_WITH(Config(Config::Json(3)), "[config] config.json is 3, wanted an object");
}

TEST_CASE("a config's text is the source's", "[config]") {
  for (const std::string file :
       {"tests/golden/families/mixtral/config.json", "tests/golden/families/qwen3_moe/config.json",
        "examples/tiny-mixtral/config.json"}) {
    CHECK(Config::read(file).text() == test::file_text(file));
  }
  const Config changed = Config::parse(R"({"b":1,"a":1e-6})", "c.json");
  CHECK(changed.text() == "{\n  \"b\": 1,\n  \"a\": 1e-06\n}\n");
}

}  // namespace moue
