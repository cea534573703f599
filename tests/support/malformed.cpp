// The catalogue of formats.md 1, made in code.
#include "support/malformed.h"

#include <fmt/format.h>

namespace moue::test {
namespace {

using namespace std::string_literals;

// A header of one U8 tensor 'a' of `size` bytes.
std::string one(int size) {
  return "{" + raw_entry("a", "U8", fmt::format("[{}]", size), fmt::format("[0,{}]", size)) + "}";
}

std::string entry_with(std::string_view fields) { return fmt::format("{{\"a\":{{{}}}}}", fields); }

std::string shaped(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return "{" + raw_entry("a", dtype, shape, offsets) + "}";
}

std::string two(std::string_view first, std::string_view second) {
  return fmt::format("{{{},{}}}", raw_entry("a", "U8", "[4]", first),
                     raw_entry("b", "U8", "[4]", second));
}

std::string many(std::string_view text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

const std::string kFour = "abcd";

std::vector<FileCase> bad_lengths() {
  const std::string body = one(4) + kFour;
  return {
      {"empty file", "", "the file has 0 bytes, wanted at least the 8 of the header's length"},
      {"1 byte", "a", "the file has 1 byte, wanted at least the 8 of the header's length"},
      {"7 bytes", "abcdefg", "the file has 7 bytes, wanted at least the 8 of the header's length"},
      {"length 0", raw_length(0), "the header starts with nothing, wanted '{'"},
      {"length one beyond the file", raw_length(body.size() + 1) + body,
       fmt::format("the header's length is {}, only {} bytes follow; is the file cut off?",
                   body.size() + 1, body.size())},
      {"length 2^32", raw_length(uint64_t{1} << 32) + body,
       "the header's length is 4294967296, wanted at most 100000000"},
      {"length 2^63", raw_length(uint64_t{1} << 63) + body,
       "the header's length is 9223372036854775808, wanted at most 100000000"},
      {"length 2^64-1", raw_length(~uint64_t{0}) + body,
       "the header's length is 18446744073709551615, wanted at most 100000000"},
      {"length just over the cap", raw_length(100'000'001) + body,
       "the header's length is 100000001, wanted at most 100000000"},
  };
}

std::vector<FileCase> bad_json() {
  return {
      {"only {", raw_file("{"),
       "not JSON at byte 2 of the header: syntax error while parsing object key - unexpected end "
       "of "
       "input; expected string literal"},
      {"invalid UTF-8", raw_file("{\"\xC3\x28\":1}"),
       "not JSON at byte 4 of the header: syntax error while parsing object key - invalid string: "
       "ill-formed UTF-8 byte"},
      {"lone surrogate", raw_file("{\"\\ud800\":1}"),
       "not JSON at byte 9 of the header: syntax error while parsing object key - invalid string: "
       "surrogate U+D800..U+DBFF must be followed by U+DC00..U+DFFF"},
      {"a list", raw_file("[]"), "the header starts with '[]', wanted '{'"},
      {"a number", raw_file("1"), "the header starts with '1', wanted '{'"},
      {"null", raw_file("null"), "the header starts with 'null', wanted '{'"},
      {"a space before", raw_file(" {}"), "the header starts with ' {}', wanted '{'"},
      {"byte order mark", raw_file("\xEF\xBB\xBF{}"),
       "the header starts with a byte order mark, wanted plain UTF-8"},
      {"NUL padding", raw_file("{}\0\0\0"s), "the header has a NUL at byte 2, wanted text"},
      {"text after a NUL", raw_file("{} \0[]"s), "the header has a NUL at byte 3, wanted text"},
      {"trailing garbage", raw_file("{}x"),
       "not JSON at byte 3 of the header: syntax error while parsing value - invalid literal"},
      {"a second object", raw_file("{}{}"),
       "not JSON at byte 3 of the header: syntax error while parsing value - unexpected '{'; "
       "expected end of input"},
      {"deep lists", raw_file(entry_with("\"data_offsets\":" + many("[", 1'000'000))),
       "tensor 'a': data_offsets holds a list, wanted non-negative integers"},
      {"deep objects", raw_file(many("{\"a\":", 1'000'000)),
       "tensor 'a': key 'a' is unknown, wanted dtype, shape, data_offsets"},
  };
}

std::vector<FileCase> bad_keys() {
  const std::string a = raw_entry("a", "U8", "[4]", "[0,4]");
  const std::string fields = "\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]";
  return {
      {"tensor twice", raw_file(fmt::format("{{{},{}}}", a, a), kFour), "tensor 'a' stands twice"},
      {"dtype twice", raw_file(entry_with(fields + ",\"dtype\":\"U8\""), kFour),
       "tensor 'a': dtype stands twice"},
      {"shape twice", raw_file(entry_with("\"shape\":[4]," + fields), kFour),
       "tensor 'a': shape stands twice"},
      {"data_offsets twice", raw_file(entry_with(fields + ",\"data_offsets\":[0,4]"), kFour),
       "tensor 'a': data_offsets stands twice"},
      {"__metadata__ twice", raw_file("{\"__metadata__\":{},\"__metadata__\":{}}"),
       "__metadata__ stands twice"},
      {"metadata key twice", raw_file(R"({"__metadata__":{"k":"1","k":"2"}})"),
       "__metadata__: key 'k' stands twice"},
      {"metadata of numbers", raw_file(R"({"__metadata__":{"n":1}})"),
       "__metadata__: 'n' is 1, wanted a string"},
      {"metadata of null", raw_file(R"({"__metadata__":{"n":null}})"),
       "__metadata__: 'n' is null, wanted a string"},
      {"metadata nested", raw_file(R"({"__metadata__":{"n":{}}})"),
       "__metadata__: 'n' is an object, wanted a string"},
      {"metadata is null", raw_file(R"({"__metadata__":null})"),
       "__metadata__ is null, wanted an object of strings"},
      {"metadata is a list", raw_file(R"({"__metadata__":[]})"),
       "__metadata__ is a list, wanted an object of strings"},
      {"a tensor named __metadata__",
       raw_file("{" + raw_entry("__metadata__", "U8", "[4]", "[0,4]") + "}", kFour),
       "__metadata__: 'shape' is a list, wanted a string"},
      {"entry is a number", raw_file("{\"a\":1}"),
       "tensor 'a' is 1, wanted an object with dtype, shape, data_offsets"},
      {"entry is a list", raw_file("{\"a\":[]}"),
       "tensor 'a' is a list, wanted an object with dtype, shape, data_offsets"},
      {"unknown key", raw_file(entry_with(fields + ",\"extra\":1"), kFour),
       "tensor 'a': key 'extra' is unknown, wanted dtype, shape, data_offsets"},
      {"no dtype", raw_file(entry_with("\"shape\":[4],\"data_offsets\":[0,4]"), kFour),
       "tensor 'a' lacks dtype"},
      {"no shape", raw_file(entry_with("\"dtype\":\"U8\",\"data_offsets\":[0,4]"), kFour),
       "tensor 'a' lacks shape"},
      {"no data_offsets", raw_file(entry_with("\"dtype\":\"U8\",\"shape\":[4]"), kFour),
       "tensor 'a' lacks data_offsets"},
      {"empty entry", raw_file("{\"empty\":{}}"), "tensor 'empty' lacks dtype"},
      {"a name of control bytes", raw_file("{\"x\\n\\u0000y\":2}"),
       "tensor 'x\\x0a\\x00y' is 2, wanted an object with dtype, shape, data_offsets"},
  };
}

std::vector<FileCase> bad_types() {
  const auto dtype = [](std::string_view value) {
    return raw_file(
        entry_with(fmt::format("\"dtype\":{},\"shape\":[4],\"data_offsets\":[0,4]", value)), kFour);
  };
  const auto shape = [](std::string_view value) {
    return raw_file(shaped("U8", value, "[0,4]"), kFour);
  };
  const std::string wanted = ", wanted non-negative integers";
  return {
      {"dtype unknown", dtype("\"F12\""), "tensor 'a': dtype 'F12' is not one of the format's"},
      {"dtype in lower case", dtype("\"u8\""), "tensor 'a': dtype 'u8' is not one of the format's"},
      {"dtype a number", dtype("8"), "tensor 'a': dtype is 8, wanted a name such as \"BF16\""},
      {"dtype null", dtype("null"), "tensor 'a': dtype is null, wanted a name such as \"BF16\""},
      {"shape negative", shape("[-4]"), "tensor 'a': shape holds -4" + wanted},
      {"shape minus zero", shape("[-0]"), "tensor 'a': shape holds 0 with a sign" + wanted},
      {"shape a float", shape("[4.0]"), "tensor 'a': shape holds 4.0" + wanted},
      {"shape with an exponent", shape("[4e0]"), "tensor 'a': shape holds 4e0" + wanted},
      {"shape of strings", shape("[\"4\"]"), "tensor 'a': shape holds '4'" + wanted},
      {"shape of booleans", shape("[true]"), "tensor 'a': shape holds true" + wanted},
      {"shape nested", shape("[[4]]"), "tensor 'a': shape holds a list" + wanted},
      {"shape a number", shape("4"), "tensor 'a': shape is 4, wanted a list"},
      {"shape an object", shape("{}"), "tensor 'a': shape is an object, wanted a list"},
      {"dimension 2^63", shape("[9223372036854775808]"),
       "tensor 'a': dimension 9223372036854775808 is 2^63 or more"},
      {"dimension 2^64", shape("[18446744073709551616]"),
       "tensor 'a': shape holds 18446744073709551616" + wanted},
      {"dimension 1e400", shape("[1e400]"),
       "not JSON at byte 33 of the header: number overflow parsing '1e400'"},
  };
}

std::vector<FileCase> bad_sizes() {
  const auto sized = [](std::string_view dtype, std::string_view shape, std::string_view offsets) {
    return raw_file(shaped(dtype, shape, offsets), kFour);
  };
  return {
      {"product overflow", sized("U8", "[4611686018427387904,8]", "[0,4]"),
       "tensor 'a': shape [4611686018427387904, 8] of U8 has more than 2^64 bits"},
      {"product overflow before a zero", sized("U8", "[4611686018427387904,16,0]", "[0,0]"),
       "tensor 'a': shape [4611686018427387904, 16, 0] of U8 has more than 2^64 bits"},
      {"bits overflow", sized("F64", "[4611686018427387904]", "[0,4]"),
       "tensor 'a': shape [4611686018427387904] of F64 has more than 2^64 bits"},
      {"product wraps to 0", sized("F32", "[65536,65536,65536,65536]", "[0,0]"),
       "tensor 'a': shape [65536, 65536, 65536, 65536] of F32 has more than 2^64 bits"},
      {"rank 65 of twos", sized("U8", "[2" + many(",2", 64) + "]", "[0,4]"),
       "tensor 'a': shape [" + many("2, ", 39) + "2,... of U8 has more than 2^64 bits"},
      {"empty shape with bytes", sized("F16", "[2,0]", "[0,4]"),
       "tensor 'a': 4 bytes lie between its data_offsets, [2, 0] of F16 takes 0"},
      {"size one short", sized("U8", "[5]", "[0,4]"),
       "tensor 'a': 4 bytes lie between its data_offsets, [5] of U8 takes 5"},
      {"size one long", sized("U8", "[3]", "[0,4]"),
       "tensor 'a': 4 bytes lie between its data_offsets, [3] of U8 takes 3"},
      {"F4 across a byte", sized("F4", "[7]", "[0,4]"),
       "tensor 'a': shape [7] of F4 overflows or does not fill whole bytes"},
      {"F6 across a byte", sized("F6_E2M3", "[5]", "[0,4]"),
       "tensor 'a': shape [5] of F6_E2M3 overflows or does not fill whole bytes"},
      {"one offset", sized("U8", "[4]", "[4]"),
       "tensor 'a': data_offsets holds 1 number, wanted begin and end"},
      {"three offsets", sized("U8", "[4]", "[0,4,4]"),
       "tensor 'a': data_offsets holds 3 numbers, wanted begin and end"},
      {"no offsets", sized("U8", "[4]", "[]"),
       "tensor 'a': data_offsets holds 0 numbers, wanted begin and end"},
      {"offsets a string", sized("U8", "[4]", "\"0,4\""),
       "tensor 'a': data_offsets is '0,4', wanted a list of begin and end"},
      {"offset negative", sized("U8", "[4]", "[-1,3]"),
       "tensor 'a': data_offsets holds -1, wanted non-negative integers"},
      {"offset a float", sized("U8", "[4]", "[0,4.0]"),
       "tensor 'a': data_offsets holds 4.0, wanted non-negative integers"},
      {"begin after end", sized("U8", "[4]", "[4,0]"),
       "tensor 'a': data_offsets [4, 0] end before they begin"},
      {"end near 2^64", sized("U8", "[4]", "[18446744073709551611,18446744073709551615]"),
       "tensor 'a': data_offsets [18446744073709551611, 18446744073709551615] reach beyond the 4 "
       "bytes of data; is the file cut off?"},
      {"cut off by one", raw_file(one(4), "abc"),
       "tensor 'a': data_offsets [0, 4] reach beyond the 3 bytes of data; is the file cut off?"},
  };
}

std::vector<FileCase> bad_tiling() {
  const std::string nine = "123456789";
  return {
      {"first begin not 0", raw_file(shaped("U8", "[4]", "[1,5]"), "12345"),
       "tensor 'a' begins at byte 1 of the data, wanted 0 for the first"},
      {"hole", raw_file(two("[0,4]", "[5,9]"), nine),
       "tensor 'b' begins at byte 5 of the data, after a hole, wanted 4, where 'a' ends"},
      {"overlap by one byte", raw_file(two("[0,4]", "[3,7]"), "1234567"),
       "tensor 'b' begins at byte 3 of the data, inside 'a', wanted 4"},
      {"identical ranges", raw_file(two("[0,4]", "[0,4]"), kFour),
       "tensor 'b' begins at byte 0 of the data, inside 'a', wanted 4"},
      {"trailing byte", raw_file(one(4), "abcde"),
       "1 byte of data follow the last tensor, which ends at 4; wanted none"},
      {"a second file behind", raw_file(one(4), kFour + raw_file(one(4), kFour)),
       "65 bytes of data follow the last tensor, which ends at 4; wanted none"},
      {"data without tensors", raw_file("{}", "PK\x03\x04"),
       "4 bytes of data follow the last tensor, which ends at 0; wanted none"},
  };
}

}  // namespace

std::string raw_length(uint64_t length) {
  std::string bytes(8, '\0');
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
  return bytes;
}

std::string raw_file(std::string_view header, std::string_view data) {
  return fmt::format("{}{}{}", raw_length(header.size()), header, data);
}

std::string raw_entry(std::string_view name, std::string_view dtype, std::string_view shape,
                      std::string_view offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape,
                     offsets);
}

std::vector<FileCase> malformed_files() {
  std::vector<FileCase> all;
  for (const auto& part :
       {bad_lengths(), bad_json(), bad_keys(), bad_types(), bad_sizes(), bad_tiling()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

std::vector<FileCase> odd_files() {
  const auto named = [](std::string_view name) {
    return raw_file("{" + raw_entry(name, "U8", "[4]", "[0,4]") + "}", kFour);
  };
  return {
      {"no tensor", raw_file("{}"), ""},
      {"padded with spaces", raw_file("{}   \n\t "), ""},
      {"empty metadata", raw_file(R"({"__metadata__":{}})"), ""},
      {"rank 0", raw_file(shaped("F32", "[]", "[0,4]"), kFour), ""},
      {"rank 65", raw_file(shaped("U8", "[4" + many(",1", 64) + "]", "[0,4]"), kFour), ""},
      {"size 0", raw_file(shaped("F32", "[3,0]", "[0,0]")), ""},
      {"size 0 at every border",
       raw_file("{" + raw_entry("x", "U8", "[0]", "[0,0]") + "," +
                    raw_entry("a", "U8", "[4]", "[0,4]") + "," +
                    raw_entry("y", "U8", "[0]", "[4,4]") + "}",
                kFour),
       ""},
      {"out of order", raw_file(two("[4,8]", "[0,4]"), "12345678"), ""},
      {"F4 in whole bytes", raw_file(shaped("F4", "[8]", "[0,4]"), kFour), ""},
      {"unaligned data", raw_file("{" + raw_entry("a", "F32", "[1]", "[0,4]") + "} ", kFour), ""},
      {"fields in another order",
       raw_file(entry_with("\"data_offsets\":[0,4],\"shape\":[4],\"dtype\":\"U8\""), kFour), ""},
      {"NaN payload", raw_file(shaped("F32", "[1]", "[0,4]"), "\x01\x00\xC0\x7F"s), ""},
      {"a name with a NUL", named("a\\u0000b"), ""},
      {"a name with ..", named("../../a"), ""},
      {"a name with a newline", named("a\\nb"), ""},
      {"an empty name", named(""), ""},
      {"a name beyond ASCII", named("\xC3\xA9\xE4\xB8\xAD\\ud83d\\ude00"), ""},
  };
}

}  // namespace moue::test
