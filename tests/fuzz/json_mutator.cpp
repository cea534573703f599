// A scanner that finds the values of JSON that may be broken, and changes of one of them.
#include "fuzz/json_mutator.h"

#include <array>
#include <string_view>
#include <vector>

namespace moue::fuzz {
namespace {

// A value, [begin, end), from the first byte of a scalar or bracket to its last.
struct Span {
  size_t begin, end;
};

size_t end_of_string(std::string_view text, size_t at) {
  for (++at; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] == '\\') ++at;
  }
  return std::min(at + 1, text.size());
}

std::vector<Span> spans_of(std::string_view text) {
  std::vector<Span> spans;
  std::vector<size_t> open;
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == '{' || c == '[') {
      open.push_back(spans.size());
      spans.push_back({at, text.size()});
      ++at;
    } else if (c == '}' || c == ']') {
      ++at;
      if (!open.empty()) {
        spans[open.back()].end = at;
        open.pop_back();
      }
    } else if (c == '"') {
      const size_t end = end_of_string(text, at);
      spans.push_back({at, end});
      at = end;
    } else if (std::string_view(",: \n\t\r").find(c) != std::string_view::npos) {
      ++at;
    } else {
      const size_t end = std::min(text.find_first_of(",:]} \n\t\r\"", at + 1), text.size());
      spans.push_back({at, end});
      at = end;
    }
  }
  return spans;
}

constexpr auto kScalars = std::to_array<std::string_view>({"0",
                                                           "-0",
                                                           "1",
                                                           "-1",
                                                           "2",
                                                           "3",
                                                           "7",
                                                           "8",
                                                           "64",
                                                           "127",
                                                           "255",
                                                           "256",
                                                           "65535",
                                                           "65536",
                                                           "2147483647",
                                                           "2147483648",
                                                           "4294967295",
                                                           "4294967296",
                                                           "9223372036854775807",
                                                           "9223372036854775808",
                                                           "18446744073709551615",
                                                           "18446744073709551616",
                                                           "1e400",
                                                           "1e-400",
                                                           "0.5",
                                                           "1.0",
                                                           "-1e9",
                                                           "1e6",
                                                           "null",
                                                           "true",
                                                           "false",
                                                           "\"\"",
                                                           "\"..\"",
                                                           "\"../x\"",
                                                           "\"a/b\"",
                                                           "\"\\u0000\"",
                                                           "\"\\ud83d\\ude00\"",
                                                           "\"F32\"",
                                                           "\"BF16\"",
                                                           "\"F4\"",
                                                           "\"U8\"",
                                                           "\"dtype\"",
                                                           "\"shape\"",
                                                           "\"data_offsets\"",
                                                           "\"__metadata__\"",
                                                           "\"weight_map\"",
                                                           "\"metadata\"",
                                                           "{}",
                                                           "[]",
                                                           "[0]",
                                                           "[1,2]",
                                                           "{\"a\":1}"});

std::string piece(const std::string& text, Span span) {
  return text.substr(span.begin, span.end - span.begin);
}

void put(std::string& text, Span span, std::string_view with) {
  text.replace(span.begin, span.end - span.begin, with);
}

std::string nested(std::string inner, size_t depth) {
  for (size_t i = 0; i < depth; ++i) inner = "[" + inner + "]";
  return inner;
}

void change(std::string& text, Random& random) {
  const std::vector<Span> spans = spans_of(text);
  if (spans.empty()) {
    text = "{}";
    return;
  }
  const Span one = spans[below(random, spans.size())], other = spans[below(random, spans.size())];
  switch (below(random, 9)) {
    case 0:
    case 1:
    case 2:
      return put(text, one, kScalars[below(random, kScalars.size())]);
    case 3:
      return put(text, one, piece(text, other));
    case 4:
      return put(text, one, piece(text, one) + "," + piece(text, other));
    case 5: {  // away, with the comma before or behind
      size_t end = one.end;
      if (end < text.size() && (text[end] == ',' || text[end] == ':')) ++end;
      return put(text, {one.begin, end}, "");
    }
    case 6:
      return put(text, one, nested(piece(text, one), 1 + below(random, 80)));
    case 7: {  // a digit more, less or other
      const size_t at = one.begin + below(random, one.end - one.begin);
      return put(text, {at, at + below(random, 2)}, std::to_string(below(random, 10)));
    }
    default: {
      const size_t at = below(random, text.size());
      text[at] = static_cast<char>(random());
    }
  }
}

}  // namespace

size_t below(Random& random, size_t limit) { return limit == 0 ? 0 : random() % limit; }

std::string mutate_json(std::string text, Random& random) {
  for (size_t i = 1 + below(random, 4); i > 0; --i) change(text, random);
  return text;
}

}  // namespace moue::fuzz
