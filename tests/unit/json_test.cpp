// Strict JSON: what is refused, and where the message points.
#include "core/json.h"

#include "core/text.h"
#include "moue/error.h"
#include "support/scratch.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <ctime>

namespace moue {
namespace {

using Json = nlohmann::ordered_json;

Json parse(std::string_view text, int depth = 64) {
  return parse_json(text, "x.json", "test", depth);
}

std::string refusal(std::string_view text, int depth = 64) {
  try {
    parse(text, depth);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string nested(int depth) {
  return std::string(static_cast<size_t>(depth), '[') +
         std::string(static_cast<size_t>(depth), ']');
}

}  // namespace

TEST_CASE("JSON keeps values and the order of keys", "[json]") {
  const std::string text =
      R"({"z":1,"a":[true,false,null,-2,1.5,"t\u00e9\ud83d\ude00"],"m":{"y":{},"b":[]},"n":18446744073709551615})";
  CHECK(parse(text).dump() ==
        "{\"z\":1,\"a\":[true,false,null,-2,1.5,\"t\xC3\xA9\xF0\x9F\x98\x80\"],\"m\":{\"y\":{},"
        "\"b\":[]},"
        "\"n\":18446744073709551615}");
  CHECK(parse(text).dump() != parse(R"({"a":1})").dump());
  CHECK(parse(" 7 ") == 7);
  CHECK(parse("-0").dump() == "0");
}

TEST_CASE("JSON faults are named with line and column", "[json]") {
  CHECK(refusal("{\n  \"a\": 1,\n  \"a\": 2}") ==
        "[test] x.json: line 3, column 5: key 'a' stands twice in one object");
  CHECK(refusal("{\"a\":{\"b\":1,\"b\":1}}") ==
        "[test] x.json: line 1, column 15: key 'b' stands twice in one object");
  CHECK(refusal("{\"b\":{\"b\":1},\"c\":[{\"b\":1},{\"b\":1}]}") == "");
  CHECK(refusal("{\n\"a\": tru}") ==
        "[test] x.json: line 2, column 9: syntax error while parsing value - invalid literal");
  CHECK(refusal("{\"a\":1}\n}") ==
        "[test] x.json: line 2, column 1: syntax error while parsing value - unexpected '}'; "
        "expected "
        "end of input");
  CHECK_THAT(refusal(""), Catch::Contains("line 1, column 0: ") && Catch::Contains("end of input"));
  CHECK_THAT(refusal("{\"a\":1,}"), Catch::Contains("line 1, column 8: "));
  CHECK_THAT(refusal("// c\n1"), Catch::Contains("line 1, column 1: "));
  CHECK_THAT(refusal("{a:1}"), Catch::Contains("line 1, column 2: "));
  CHECK_THAT(refusal("{'a':1}"), Catch::Contains("parsing object key"));
  CHECK_THAT(refusal("NaN"), Catch::Contains("invalid literal"));
  CHECK_THAT(refusal("01"), Catch::Contains("line 1, column 2: "));
  CHECK_THAT(refusal("1e999"), Catch::Contains("number overflow"));
  CHECK_THAT(refusal("\"\t\""), Catch::Contains("control character"));
}

TEST_CASE("JSON must be UTF-8 without marks and NULs", "[json]") {
  CHECK_THAT(refusal("\"\xFF\""), Catch::Contains("ill-formed UTF-8"));
  CHECK_THAT(refusal("\"\xC0\xAF\""), Catch::Contains("ill-formed UTF-8"));
  CHECK_THAT(refusal("\"\xED\xA0\x80\""), Catch::Contains("ill-formed UTF-8"));
  CHECK_THAT(refusal("\"\\ud800\""), Catch::Contains("surrogate"));
  CHECK_THAT(refusal("\"\\udc00\""), Catch::Contains("surrogate"));
  CHECK(refusal("\xEF\xBB\xBF{}") ==
        "[test] x.json starts with a byte order mark, wanted plain UTF-8");
  CHECK(refusal(std::string_view("{}\0", 3)) == "[test] x.json has a NUL at byte 2, wanted text");
  CHECK(refusal("\"\\u0000\"") == "");
}

TEST_CASE("JSON is only so deep", "[json]") {
  CHECK(refusal(nested(64)) == "");
  CHECK(refusal(nested(65)) == "[test] x.json: line 1, column 65: more than 64 levels deep");
  CHECK(refusal(nested(3), 2) == "[test] x.json: line 1, column 3: more than 2 levels deep");
  CHECK_THAT(refusal(std::string(1'000'000, '[')), Catch::Contains("more than 64 levels deep"));
  CHECK_THAT(refusal(std::string(1'000'000, '{')), Catch::Contains("parsing object key"));
}

TEST_CASE("a long JSON object is read in linear time", "[json]") {
  std::string text = "{\"key\":0";
  for (int i = 0; i < 200'000; ++i) text += fmt::format(",\"k{}\":{}", i, i);
  const std::clock_t start = std::clock();  // of this process: others may keep the machine busy
  CHECK(parse(text + "}").size() == 200'001);
  CHECK(refusal(text + ",\"k7\":0}") != "");
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  CHECK(seconds < 20);  // each key held against all before it would take minutes
}

TEST_CASE("a JSON file is read up to its limit", "[json]") {
  const test::ScratchDir scratch;
  const auto file = scratch.write("x.json", "{\"a\": [1, 2]}");
  CHECK(read_json(file, "test")["a"][1] == 2);
  CHECK_THROWS_WITH(read_json(file, "test", 5),
                    Catch::EndsWith("x.json has 13 bytes, wanted at most 5"));
  CHECK_THROWS_WITH(read_json(scratch / "none", "test"), Catch::EndsWith("none is not there"));
  CHECK_THROWS_WITH(read_json(scratch.path(), "test"),
                    Catch::EndsWith("is a directory, wanted a regular file"));
  CHECK_THROWS_WITH(
      read_json(scratch.write("bad", "\n\n]"), "test"),
      Catch::StartsWith("[test] " + (scratch / "bad").native() + ": line 3, column 1"));
}

TEST_CASE("names in messages are printable and short", "[json]") {
  using namespace std::string_literals;
  CHECK(in_quotes("a\n\0\x7F\xFF"s) == "'a\\x0a\\x00\\x7f\\xff'");
  CHECK(printable("\xC3\xA9") == "\xC3\xA9");
  CHECK(printable("\xE4\xB8") == "\\xe4\\xb8");
  CHECK(printable(std::string(200, 'a'), 10) == "aaaaaaaaaa...");
  CHECK(printable(std::string(10, 'a'), 10) == "aaaaaaaaaa");
  CHECK(counted(1, "shard") == "1 shard");
  CHECK(counted(0, "shard") == "0 shards");
  const std::vector<std::string> words = {"a", "b", "c"};
  CHECK(join(words) == "a, b, c");
  CHECK(join_some(words, 3) == "a, b, c");
  CHECK(join_some(words, 2) == "a, b and 1 more");
}

TEST_CASE("a mistyped word finds its neighbour", "[json]") {
  const std::vector<std::string> keys = {"steps", "batch", "length", "lr", "seed"};
  CHECK(nearest("stpes", keys) == "steps");
  CHECK(nearest("lenght", keys) == "length");
  CHECK(nearest("batches", keys) == "batch");
  CHECK(nearest("steps", keys) == "steps");
  CHECK(nearest("warmup", keys) == std::nullopt);
  CHECK(nearest("", keys) == std::nullopt);
  CHECK(nearest("steps", {}) == std::nullopt);
}

}  // namespace moue
