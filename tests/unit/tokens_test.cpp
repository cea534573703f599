// Token files: what is read, what is refused and with which words; the order of training data.
#include <catch2/catch.hpp>

#include "moue/error.h"
#include "support/scratch.h"
#include "tokens/order.h"
#include "tokens/tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

using namespace moue;
using Catch::Matchers::Contains;
using moue::test::Scratch;
using moue::test::write_text;
namespace fs = std::filesystem;

namespace {

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

template <class Integer = int32_t>
std::vector<Integer> tokens_at(const TokenFile& file, uint64_t position, size_t count) {
  std::vector<Integer> tokens(count);
  file.read(position, std::span<Integer>(tokens));
  return tokens;
}

template <class T>
std::string llmc(int32_t magic, int32_t version, int32_t count, const std::vector<T>& tokens) {
  std::vector<int32_t> header(256);
  header[0] = magic, header[1] = version, header[2] = count;
  return bytes_of(header) + bytes_of(tokens);
}

struct Megatron {
  std::string magic{"MMIDIDX\0\0", 9};
  uint64_t version = 1;
  uint8_t code = 8;
  std::vector<int32_t> lengths{3, 0, 2};
  std::vector<int64_t> offsets{0, 6, 6};
  std::vector<int64_t> documents{0, 2, 3};
  uint64_t sequences = 3;
  std::string text() const {
    return magic + bytes_of(std::vector{version}) + bytes_of(std::vector{code}) +
           bytes_of(std::vector{sequences, uint64_t{documents.size()}}) + bytes_of(lengths) +
           bytes_of(offsets) + bytes_of(documents);
  }
};

const std::vector<uint16_t> kFive{10, 20, 30, 40, 65535};

void refuses(const fs::path& file, const std::string& words, std::string_view type = "") {
  CHECK_THROWS_WITH(TokenFile(file, type), Contains(words) && Contains("[tokens]"));
}

}  // namespace

TEST_CASE("raw tokens are read by position") {
  const Scratch scratch;
  write_text(scratch / "a.u16", bytes_of(kFive));
  const TokenFile file(scratch / "a.u16");
  CHECK(file.size() == 5);
  CHECK(tokens_at(file, 1, 3) == std::vector{20, 30, 40});
  CHECK(tokens_at<int64_t>(file, 4, 1) == std::vector<int64_t>{65535});
  CHECK(tokens_at<uint32_t>(file, 5, 0).empty());
  CHECK_THROWS_WITH(tokens_at(file, 4, 2), Contains("has 5 tokens, wanted 2 from token 4"));
  CHECK_THROWS_AS(tokens_at(file, ~uint64_t{0}, 2), Error);

  write_text(scratch / "b.u32", bytes_of(std::vector<uint32_t>{7, 70000}));
  CHECK(tokens_at(TokenFile(scratch / "b.u32"), 0, 2) == std::vector{7, 70000});
  write_text(scratch / "c.dat", bytes_of(std::vector<uint32_t>{7, 70000}));
  CHECK(tokens_at(TokenFile(scratch / "c.dat", "u32"), 1, 1) == std::vector{70000});
  CHECK(TokenFile(scratch / "c.dat", "u16").size() == 4);
}

TEST_CASE("long reads cross the pieces they are made in") {
  const Scratch scratch;
  std::vector<uint32_t> many(50000);
  std::iota(many.begin(), many.end(), 0);
  write_text(scratch / "many.u32", bytes_of(many));
  const TokenFile file(scratch / "many.u32");
  CHECK(tokens_at<uint32_t>(file, 0, many.size()) == many);
  CHECK(tokens_at<uint32_t>(file, 8191, 2) == std::vector<uint32_t>{8191, 8192});
}

TEST_CASE("llm.c files of both widths are read") {
  const Scratch scratch;
  write_text(scratch / "two.bin", llmc(20240520, 1, 5, kFive));
  CHECK(tokens_at(TokenFile(scratch / "two.bin"), 0, 5) == std::vector{10, 20, 30, 40, 65535});
  write_text(scratch / "four.bin", llmc(20240801, 7, 2, std::vector<uint32_t>{128000, 9}));
  CHECK(tokens_at(TokenFile(scratch / "four.bin", "u32"), 0, 2) == std::vector{128000, 9});
  refuses(scratch / "four.bin", "holds u32 by its header, token_type says u16", "u16");

  write_text(scratch / "few.bin", llmc(20240520, 1, 6, kFive));
  refuses(scratch / "few.bin", "announces 6 tokens of 2 bytes, 10 bytes follow its header");
  write_text(scratch / "negative.bin", llmc(20240520, 1, -5, kFive));
  refuses(scratch / "negative.bin", "announces -5 tokens");
  write_text(scratch / "cut.bin", llmc(20240520, 1, 5, kFive).substr(0, 1000));
  refuses(scratch / "cut.bin", "is 1000 bytes, an llm.c header takes 1024");
  write_text(scratch / "none.bin", llmc(20240801, 7, 0, std::vector<uint32_t>{}));
  refuses(scratch / "none.bin", "holds no tokens");
  write_text(scratch / "other.bin", llmc(20240801, 1, 5, kFive));
  refuses(scratch / "other.bin", "say what it is with token_type");
}

TEST_CASE("Megatron files are read by any of their names") {
  const Scratch scratch;
  write_text(scratch / "m.bin", bytes_of(kFive));
  write_text(scratch / "m.idx", Megatron{}.text());
  for (const char* name : {"m", "m.bin", "m.idx"}) {
    const TokenFile file(scratch / name);
    CHECK(tokens_at(file, 0, 5) == std::vector{10, 20, 30, 40, 65535});
    CHECK(file.path().filename() == "m.bin");
  }
  Megatron wide{.code = 4, .offsets = {0, 12, 12}};
  write_text(scratch / "m.bin", bytes_of(std::vector<int32_t>{1, 2, 3, 4, -5}));
  write_text(scratch / "m.idx", wide.text());
  const TokenFile file(scratch / "m");
  CHECK(tokens_at(file, 0, 4) == std::vector{1, 2, 3, 4});
  CHECK_THROWS_WITH(tokens_at(file, 0, 5), Contains("token 4 is -5"));
  write_text(scratch / "m.idx", wide.text() + std::string(3, '\0'));  // modes, a byte a sequence
  CHECK(TokenFile(scratch / "m").size() == 5);
}

TEST_CASE("documents of a Megatron file begin where its index says") {
  const Scratch scratch;
  write_text(scratch / "m.bin", bytes_of(kFive));
  const auto documents = [&](const Megatron& index) {
    write_text(scratch / "m.idx", index.text());
    return TokenFile(scratch / "m.idx").documents();
  };
  CHECK(documents({}) == std::vector<uint64_t>{0, 3, 5});
  CHECK(documents({.documents = {0, 1, 2, 3}}) == std::vector<uint64_t>{0, 3, 3, 5});
  CHECK(documents({.documents = {0, 3}}) == std::vector<uint64_t>{0, 5});
  CHECK(documents({.documents = {0}}) == std::vector<uint64_t>{0, 5});
  CHECK(documents({.documents = {}}).empty());
  write_text(scratch / "raw.u16", bytes_of(kFive));
  CHECK(TokenFile(scratch / "raw.u16").documents().empty());
}

TEST_CASE("a Megatron index is checked number by number") {
  const Scratch scratch;
  write_text(scratch / "m.bin", bytes_of(kFive));
  const auto refused = [&](const Megatron& index, const std::string& words) {
    write_text(scratch / "m.idx", index.text());
    refuses(scratch / "m.idx", words);
  };
  refused({.magic = std::string("MMIDIDX\0\1", 9)}, "does not begin as a Megatron index");
  refused({.version = 2}, "version 2, wanted 1");
  refused({.code = 6}, "element code 6");
  refused({.code = 9}, "element code 9");
  refused({.lengths = {3, -1, 3}}, "sequence 1 has length -1");
  refused({.offsets = {0, 6, 8}}, "sequence 2 begins at byte 8, wanted 6");
  refused({.offsets = {0, -6, 6}}, "sequence 1 begins at byte -6");
  refused({.lengths = {3, 0, 3}}, "is 10 bytes, ");
  refused({.documents = {0, 3, 2}}, "document boundary 2 is 2, wanted 3 to 3");
  refused({.documents = {0, 4}}, "document boundary 1 is 4, wanted 0 to 3");
  refused({.documents = {1, 3}}, "document boundary 0 is 1, wanted 0");
  refused({.sequences = 2}, "announces 2 sequences");
  refused({.sequences = ~uint64_t{0}}, "announces 18446744073709551615 sequences");
  refused({.sequences = uint64_t{1} << 62}, "announces 4611686018427387904 sequences");
  const std::string whole = Megatron{}.text();
  for (size_t length = 9; length < whole.size(); ++length) {
    write_text(scratch / "m.idx", whole.substr(0, length));
    CHECK_THROWS_AS(TokenFile(scratch / "m.idx"), Error);
  }
  fs::remove(scratch / "m.bin");
  write_text(scratch / "m.idx", whole);
  refuses(scratch / "m.idx", "m.bin is not there");
}

TEST_CASE("what is no token file is refused by name") {
  const Scratch scratch;
  write_text(scratch / "odd.u16", "abc");
  refuses(scratch / "odd.u16", "odd.u16 is 3 bytes, wanted a multiple of 2 for u16");
  write_text(scratch / "empty.u16", "");
  refuses(scratch / "empty.u16", "holds no tokens");
  write_text(scratch / "text.txt", "In the beginning");
  refuses(scratch / "text.txt", "say what it is with token_type");
  refuses(scratch / "text.txt", "token_type is 'u8', wanted u16 or u32", "u8");
  refuses(scratch / "absent.u16", "absent.u16 is not there");
  fs::create_directory(scratch / "folder.u16");
  refuses(scratch / "folder.u16", "folder.u16 is a directory, wanted a regular file");
}

TEST_CASE("tokens outside the vocabulary are named with file and position") {
  const Scratch scratch;
  std::vector<uint16_t> many(40000, 3);
  many[35000] = 61;
  write_text(scratch / "a.u16", bytes_of(many));
  TokenFile file(scratch / "a.u16");
  CHECK_NOTHROW(file.check_vocabulary(62));
  CHECK_THROWS_WITH(file.check_vocabulary(61),
                    Contains("a.u16 token 35000 is 61, wanted 0 to 60; was it made with"));
  CHECK_NOTHROW(tokens_at(file, 0, 35000));
  CHECK_THROWS_WITH(tokens_at(file, 34999, 2), Contains("token 35000 is 61"));
  write_text(scratch / "b.u32", bytes_of(std::vector<uint32_t>{1, 1u << 31}));
  CHECK_THROWS_WITH(tokens_at(TokenFile(scratch / "b.u32"), 0, 2),
                    Contains("token 1 is 2147483648"));
}

TEST_CASE("a large file is checked as it is read, and when it shrinks says so") {
  const Scratch scratch;
  write_text(scratch / "large.u16", bytes_of(kFive));
  fs::resize_file(scratch / "large.u16", (uint64_t{64} << 20) + 2);
  TokenFile file(scratch / "large.u16");
  CHECK_NOTHROW(file.check_vocabulary(61));  // not read through
  CHECK_THROWS_WITH(tokens_at(file, 4, 1), Contains("token 4 is 65535"));
  fs::resize_file(scratch / "large.u16", 6);
  CHECK_THROWS_WITH(tokens_at(file, 2, 2), Contains("large.u16 ends at byte 6, wanted"));
}

TEST_CASE("a mask says which targets count") {
  const Scratch scratch;
  write_text(scratch / "a.u16", bytes_of(kFive));
  std::vector<uint8_t> mask(3);
  const TokenFile plain(scratch / "a.u16");
  CHECK_FALSE(plain.has_mask());
  plain.read_mask(2, mask);
  CHECK(mask == std::vector<uint8_t>{1, 1, 1});

  write_text(scratch / "a.mask", std::string("\1\1\0\0\1", 5));
  const TokenFile masked(scratch / "a.u16");
  CHECK(masked.has_mask());
  masked.read_mask(2, mask);
  CHECK(mask == std::vector<uint8_t>{0, 0, 1});
  CHECK_THROWS_AS(masked.read_mask(3, mask), Error);

  write_text(scratch / "a.mask", std::string("\1\1\0\2\1", 5));
  CHECK_THROWS_WITH(TokenFile(scratch / "a.u16").read_mask(2, mask),
                    Contains("a.mask byte 3 is 2, wanted 0 or 1"));
  write_text(scratch / "a.mask", "\1\1\1\1");
  refuses(scratch / "a.u16", "a.mask is 4 bytes, wanted one for each of the 5 tokens");
}

TEST_CASE("windows share their border token and drop the tail") {
  const Scratch scratch;
  write_text(scratch / "a.u16", std::string(2 * 13, '\0'));
  const TokenFile file(scratch / "a.u16");
  CHECK(file.num_windows(4) == 3);
  CHECK(file.num_windows(12) == 1);
  CHECK(file.num_windows(13) == 0);
  CHECK_THROWS_WITH(file.num_windows(0), Contains("length is 0"));
  TokenFile held_out("examples/tiny-mixtral/data/held_out.u16");
  CHECK(held_out.size() == 112813);
  CHECK(held_out.num_windows(256) == 440);
  CHECK_NOTHROW(held_out.check_vocabulary(2048));
}

TEST_CASE("permuted is a bijection for every size, key and tweak") {
  for (const uint64_t size : {1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097}) {
    for (const uint64_t tweak : {0, 1}) {
      std::set<uint64_t> seen;
      for (uint64_t i = 0; i < size; ++i) seen.insert(permuted(i, size, 42, tweak));
      CHECK(seen.size() == size);
      CHECK(*seen.rbegin() == size - 1);
    }
  }
  const uint64_t huge = (uint64_t{1} << 63) + 12345;
  CHECK(permuted(huge - 1, huge, 1, 0) < huge);
}

TEST_CASE("permuted mixes: neighbours part, places look uniform") {
  constexpr uint64_t kSize = 2756;  // windows of 256 in more.u16
  uint64_t fixed = 0, neighbours = 0;
  double displacement = 0;
  for (uint64_t i = 0; i < kSize; ++i) {
    const uint64_t here = permuted(i, kSize, 7, 0);
    fixed += here == i;
    neighbours += permuted((i + 1) % kSize, kSize, 7, 0) == here + 1;
    displacement += std::abs(static_cast<double>(here) - static_cast<double>(i));
  }
  CHECK(fixed < 10);  // one is expected
  CHECK(neighbours < 10);
  CHECK(displacement / kSize == Approx(kSize / 3.0).epsilon(0.05));
}

TEST_CASE("shuffled rows visit every window once an epoch, in another order each") {
  const DataOrder order{.seed = 5, .windows = 23, .length = 8, .batch = 4};
  std::vector<std::vector<uint64_t>> epochs(3);
  for (int64_t row = 0; row < 3 * 23; ++row) {
    epochs[row / 23].push_back(order.position(row / 4, row % 4));
  }
  CHECK(epochs[0] != epochs[1]);
  CHECK(epochs[1] != epochs[2]);
  for (auto& epoch : epochs) {
    std::ranges::sort(epoch);
    for (uint64_t window = 0; window < 23; ++window) CHECK(epoch[window] == window * 8);
  }
  DataOrder other = order;
  other.seed = 6;
  std::vector<uint64_t> first, second;
  for (int64_t step = 0; step < 5; ++step) {
    first.push_back(order.position(step, 0));
    second.push_back(other.position(step, 0));
  }
  CHECK(first != second);
  CHECK(order.epochs(23) == 4.0);
}

TEST_CASE("sequential rows stand at (step * batch + i) * length and begin again") {
  const DataOrder order{Order::Sequential, 0, 10, 8, 4};
  CHECK(order.position(0, 0) == 0);
  CHECK(order.position(1, 3) == 7 * 8);
  CHECK(order.position(2, 1) == 9 * 8);
  CHECK(order.position(2, 2) == 0);
  CHECK(order_of("sequential") == Order::Sequential);
  CHECK(order_of("shuffled") == Order::Shuffled);
  CHECK_THROWS_WITH(order_of("random"), Contains("no order 'random'; known: sequential, shuffled"));
}
