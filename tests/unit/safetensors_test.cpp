// SafetensorsFile: every rule of the format has its own message, and legal oddities load.
#include "moue/safetensors.h"

#include "moue/error.h"
#include "support/malformed.h"
#include "support/memory.h"
#include "support/scratch.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <cmath>
#include <cstring>
#include <ctime>
#include <fstream>
#include <functional>
#include <random>
#include <set>

namespace moue {
namespace {

namespace fs = std::filesystem;
using test::raw_entry;
using test::raw_file;
using test::works_within;

// The message of the refusal, or "" where the file loads.
std::string refusal(const fs::path& file) {
  try {
    const SafetensorsFile loaded(file);
    for (const TensorInfo& tensor : loaded.tensors()) loaded.read(tensor);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string refusal(const test::ScratchDir& scratch, const std::string& bytes) {
  fs::remove(scratch / "x");  // a new file: ext4 flushes one that is truncated and rewritten
  return refusal(scratch.write("x", bytes));
}

std::string big_header(size_t count) {
  std::string header = "{";
  for (size_t i = 0; i < count; ++i) {
    header += fmt::format(
        "{}{}", i == 0 ? "" : ",",
        raw_entry(fmt::format("model.layers.{}.e.{}.w", i / 900, i % 900), "U8", "[1,0]", "[0,0]"));
  }
  return header + "}";
}

}  // namespace

TEST_CASE("every malformed file has its own plain message", "[safetensors]") {
  const test::ScratchDir scratch;
  const std::string start = "[safetensors] " + (scratch / "x").native() + ": ";
  std::set<std::string> messages;
  for (const test::FileCase& bad : test::malformed_files()) {
    INFO(bad.name);
    CHECK(refusal(scratch, bad.bytes) == start + bad.message);
    CHECK(messages.insert(bad.message).second);
  }
  CHECK(messages.size() >= 80);
}

TEST_CASE("odd but legal files load", "[safetensors]") {
  const test::ScratchDir scratch;
  for (const test::FileCase& odd : test::odd_files()) {
    INFO(odd.name);
    CHECK(refusal(scratch, odd.bytes) == "");
  }
}

TEST_CASE("no malformed file takes memory beyond its size", "[safetensors][no_asan]") {
  const test::ScratchDir scratch;
  for (const test::FileCase& bad : test::malformed_files()) {
    INFO(bad.name);
    const fs::path file = scratch.write("x", bad.bytes);
    CHECK(works_within(bad.bytes.size() + (8 << 20), [&] { return !refusal(file).empty(); }));
  }
  CHECK_FALSE(works_within(8 << 20, [] { return std::string(256 << 20, 'x').size() > 0; }));
}

TEST_CASE("a file cut at any byte is refused", "[safetensors]") {
  const test::ScratchDir scratch;
  std::string header = "{\"__metadata__\":{\"format\":\"pt\"}";
  for (int i = 0; i < 6; ++i) {
    header += "," + raw_entry(fmt::format("t{}", i), "F32", "[4,4]",
                              fmt::format("[{},{}]", i * 64, i * 64 + 64));
  }
  std::string whole = raw_file(header + "}", std::string(6 * 64, 'x'));
  REQUIRE(whole.size() > 700);
  CHECK(refusal(scratch, whole) == "");
  for (size_t size = 0; size < whole.size(); ++size) {
    INFO("cut to " << size);
    CHECK_THAT(refusal(scratch, whole.substr(0, size)), Catch::StartsWith("[safetensors] "));
  }
}

TEST_CASE("a changed byte loads or is refused, nothing else", "[safetensors]") {
  const test::ScratchDir scratch;
  const std::string whole =
      raw_file("{\"__metadata__\":{\"k\":\"v\"}," + raw_entry("a", "BF16", "[2,2]", "[0,8]") + "," +
                   raw_entry("b", "I64", "[1]", "[8,16]") + "}",
               "0123456789abcdef");
  std::mt19937 random(7);
  int refused = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string bytes = whole;
    for (uint32_t n = 1 + random() % 3; n > 0; --n) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    if (!refusal(scratch, bytes).empty()) ++refused;
  }
  CHECK(refused > 3000);
  CHECK(refused < 4000);
}

TEST_CASE("what is not a regular file is refused at once", "[safetensors]") {
  const test::ScratchDir scratch;
  REQUIRE(::mkfifo((scratch / "fifo").c_str(), 0600) == 0);
  fs::create_directory(scratch / "folder");
  fs::create_symlink("nowhere", scratch / "dangling");
  fs::create_symlink("loop", scratch / "loop");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, (scratch / "socket").c_str(), sizeof(address.sun_path) - 1);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  REQUIRE(::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  CHECK_THAT(refusal(scratch / "fifo"), Catch::EndsWith("is a FIFO, wanted a regular file"));
  CHECK_THAT(refusal(scratch / "folder"), Catch::EndsWith("is a directory, wanted a regular file"));
  CHECK_THAT(refusal("/dev/zero"), Catch::EndsWith("/dev/zero is a device, wanted a regular file"));
  CHECK_THAT(refusal(scratch / "socket"),
             Catch::EndsWith("is a socket or a device, wanted a regular file"));
  CHECK_THAT(refusal(scratch / "dangling"),
             Catch::EndsWith("is a link to nowhere, which is not there"));
  CHECK_THAT(refusal(scratch / "loop"), Catch::Contains("cannot be opened: Too many levels"));
  CHECK_THAT(refusal(scratch / "none"), Catch::EndsWith("none is not there"));
  ::close(socket);
}

TEST_CASE("a file that may not be read says so", "[safetensors]") {
  const test::ScratchDir scratch;
  const fs::path file = scratch.write("x", raw_file("{}"));
  REQUIRE(::chmod(file.c_str(), 0) == 0);
  REQUIRE(::chmod(scratch.path().c_str(), 0755) == 0);
  const bool root = ::geteuid() == 0;
  if (root) REQUIRE(::seteuid(65534) == 0);
  const std::string message = refusal(file);
  if (root) REQUIRE(::seteuid(0) == 0);
  CHECK_THAT(message, Catch::EndsWith("/x cannot be opened: Permission denied"));
}

TEST_CASE("a file that shrank is an error", "[safetensors]") {
  const test::ScratchDir scratch;
  const std::string bytes =
      raw_file("{" + raw_entry("a", "F32", "[1024]", "[0,4096]") + "}", std::string(4096, '\1'));
  const SafetensorsFile file(scratch.write("x", bytes));
  CHECK(file.values("a").size() == 1024);
  fs::resize_file(scratch / "x", bytes.size() - 1);
  CHECK_THROWS_WITH(file.values("a"), Catch::Contains(fmt::format(
                                          "ends at byte {}, wanted {} bytes as when it was opened",
                                          bytes.size() - 1, bytes.size())));
  fs::resize_file(scratch / "x", 0);
  CHECK_THROWS_AS(file.read(file.at("a")), Error);
}

TEST_CASE("parts of a tensor are read by position", "[safetensors]") {
  const test::ScratchDir scratch;
  const SafetensorsFile file(
      scratch.write("x", raw_file("{" + raw_entry("b", "U8", "[4]", "[4,8]") + "," +
                                      raw_entry("a", "U8", "[4]", "[0,4]") + "}",
                                  "abcdefgh")));
  CHECK(file.tensors()[0].name == "a");
  CHECK(file.find("b")->offset == file.data_offset() + 4);
  CHECK(file.find("c") == nullptr);
  std::string part(2, ' ');
  file.read(file.at("b"), 1, std::as_writable_bytes(std::span(part)));
  CHECK(part == "fg");
  CHECK_THROWS_AS(file.read(file.at("b"), 3, std::as_writable_bytes(std::span(part))),
                  std::out_of_range);
  CHECK_THROWS_WITH(file.at("c"), Catch::EndsWith("/x has no tensor 'c'; it holds 'a', 'b'"));
}

TEST_CASE("values are exact in every float and integer type", "[safetensors]") {
  const test::ScratchDir scratch;
  const auto values = [&](std::string_view dtype, int count, std::string_view data) {
    const std::string header =
        "{" +
        raw_entry("v", dtype, fmt::format("[{}]", count), fmt::format("[0,{}]", data.size())) + "}";
    return SafetensorsFile(scratch.write("x", raw_file(header, data))).values("v");
  };
  using namespace std::string_literals;
  using List = std::vector<double>;
  CHECK(values("F32", 2, "\0\0\x80\x3F\0\0\0\xC0"s) == List{1, -2});
  CHECK(values("F64", 1, "\0\0\0\0\0\0\xF8\x3F"s) == List{1.5});
  CHECK(values("BF16", 3, "\x80\x3F\0\xC0\x80\xFF"s) == List{1, -2, -INFINITY});
  // 1, -2, largest 65504, smallest normal 2^-14, smallest subnormal 2^-24, largest subnormal, -inf
  CHECK(
      values("F16", 7, "\0\x3C\0\xC0\xFF\x7B\0\x04\x01\0\xFF\x03\0\xFC"s) ==
      List{1, -2, 65504, std::ldexp(1, -14), std::ldexp(1, -24), std::ldexp(1023, -24), -INFINITY});
  CHECK(std::isnan(values("F16", 1, "\x01\x7E"s)[0]));
  CHECK(std::isnan(values("F32", 1, "\x01\0\xC0\x7F"s)[0]));
  CHECK(std::signbit(values("F16", 1, "\0\x80"s)[0]));
  CHECK(values("I8", 2, "\xFF\x7F"s) == List{-1, 127});
  CHECK(values("U8", 1, "\xFF"s) == List{255});
  CHECK(values("BOOL", 2, "\0\1"s) == List{0, 1});
  CHECK(values("I16", 1, "\xFF\xFF"s) == List{-1});
  CHECK(values("U16", 1, "\xFF\xFF"s) == List{65535});
  CHECK(values("I32", 1, "\xFE\xFF\xFF\xFF"s) == List{-2});
  CHECK(values("U32", 1, "\xFF\xFF\xFF\xFF"s) == List{4294967295.0});
  CHECK(values("I64", 1, "\xFD\xFF\xFF\xFF\xFF\xFF\xFF\xFF"s) == List{-3});
  CHECK(values("U64", 1, "\0\0\0\0\0\0\0\x80"s) == List{std::ldexp(1, 63)});
  CHECK_THROWS_WITH(
      values("F8_E4M3", 1, "a"),
      Catch::EndsWith("tensor 'v' is F8_E4M3, wanted F64, F32, F16, BF16 or integers"));
  CHECK_THROWS_AS(values("C64", 1, "12345678"), Error);
}

TEST_CASE("a header of very many tensors", "[safetensors]") {
  const test::ScratchDir scratch;
#ifdef __SANITIZE_ADDRESS__
  const size_t count = 90'000;  // sanitizers make it ten times as slow
#else
  const size_t count = 900'000;
#endif
  const fs::path file = scratch.write("x", raw_file(big_header(count)));
  const std::clock_t start = std::clock();  // of this process: others may keep the machine busy
  const SafetensorsFile loaded(file);
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  INFO("header of " << fs::file_size(file) << " bytes in " << seconds << " s");
  CHECK(loaded.tensors().size() == count);
  CHECK(loaded.find("model.layers.99.e.899.w") != nullptr);
  CHECK(loaded.find("model.layers.99.e.900.w") == nullptr);
  CHECK(seconds < 30);  // it takes one; an accident of n^2 takes hours
}

TEST_CASE("large headers stay in proportion to the file", "[safetensors][no_asan]") {
  const test::ScratchDir scratch;
  const auto fits = [&](const std::string& bytes, uint64_t times, const std::string& message) {
    const fs::path file = scratch.write("x", bytes);
    return works_within(times * bytes.size(), [&] {
      const std::string seen = refusal(file);
      return message.empty() ? seen.empty() : seen.find(message) != seen.npos;
    });
  };
  CHECK(fits(raw_file(big_header(300'000)), 6, ""));
  CHECK_FALSE(fits(raw_file(big_header(300'000)), 1, ""));
  std::string metadata = "{\"__metadata__\":{\"0\":\"\"";
  for (int i = 1; i < 1'000'000; ++i) metadata += fmt::format(",\"{}\":\"\"", i);
  CHECK(fits(raw_file(metadata + "}}"), 12, ""));
  const std::string key(50'000'000, 'k');
  CHECK(fits(raw_file("{" + raw_entry(key, "U8", "[0]", "[0,0]") + "}"), 6, ""));
  CHECK(fits(raw_file("{\"" + key), 12,
             "missing closing quote"));  // the parser's message holds copies
}

TEST_CASE("a header over the cap is refused unread", "[safetensors]") {
  const test::ScratchDir scratch;
  const fs::path file = scratch.write("x", test::raw_length(100'000'001));
  fs::resize_file(file, 100'000'100);  // a hole, no blocks
  CHECK_THAT(refusal(file),
             Catch::EndsWith("the header's length is 100000001, wanted at most 100000000"));
  std::fstream(file, std::ios::in | std::ios::out | std::ios::binary)
      << test::raw_length(100'000'000);
  CHECK_THAT(refusal(file), Catch::EndsWith("the header has a NUL at byte 0, wanted text"));
}

}  // namespace moue
