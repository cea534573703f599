// Streaming: the same bytes and digests however the work is split; memory counted; faults end it.
#include <catch2/catch.hpp>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "convert/stream.h"
#include "core/sha256.h"
#include "moue/error.h"
#include "support/files.h"
#include "support/messages.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

// Byte i of file n; no period that a chunk's size divides.
std::byte byte_of(size_t n, uint64_t i) {
  return static_cast<std::byte>((i * 2654435761U >> 7) + i / 4096 + n);
}

StreamedFile made(size_t n, uint64_t bytes) {
  return {fmt::format("file-{}", n), bytes, [n](uint64_t from, std::span<std::byte> out) {
            for (size_t i = 0; i < out.size(); ++i) out[i] = byte_of(n, from + i);
          }};
}

std::vector<StreamedFile> some_files() {
  return {made(0, 3'000'001), made(1, 1), made(2, 65'536), made(3, 700'000), made(4, 4097)};
}

std::string content_of(size_t n, uint64_t bytes) {
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(byte_of(n, i));
  return text;
}

StreamOptions options_of(int64_t threads, uint64_t memory) {
  StreamOptions options;
  options.threads = threads;
  options.memory = memory;
  return options;
}

}  // namespace

TEST_CASE("files are whole and digests right, with any threads and memory") {
  const std::vector<StreamedFile> files = some_files();
  for (const int64_t threads : {1, 2, 3, 16}) {
    for (const uint64_t memory : {uint64_t{4} << 20, uint64_t{1} << 30}) {
      INFO(threads << " threads, " << memory << " bytes");
      const Scratch scratch;
      Staging staging(scratch / "out");
      const auto digests = stream_files(staging, files, options_of(threads, memory));
      staging.commit();
      REQUIRE(digests.size() == files.size());
      for (size_t n = 0; n < files.size(); ++n) {
        const std::string wanted = content_of(n, files[n].bytes);
        CHECK(file_text(scratch / "out" / files[n].name) == wanted);
        CHECK(digests[n].bytes == files[n].bytes);
        CHECK(digests[n].sha256 == sha256_of(std::as_bytes(std::span(wanted))));
      }
    }
  }
}

TEST_CASE("buffers keep to their memory, and every thread has two") {
  for (const int64_t threads : {1, 2, 8, 64}) {
    for (const uint64_t memory : {uint64_t{16} << 20, uint64_t{100'000'000}, uint64_t{1} << 30}) {
      StreamOptions options = options_of(threads, memory);
      options.scratch = 5 << 20;
      const StreamBuffers buffers = buffers_for(options);
      CHECK(buffers.bytes() + options.scratch <= memory);
      CHECK(buffers.count >= 2 * threads);
      CHECK(buffers.chunk % 4096 == 0);
    }
  }
  const std::string message = message_of([] { buffers_for(options_of(64, 1 << 20)); });
  CHECK(contains(message, "memory is 1048576 bytes, wanted at least 8388608 for 64 threads"));
  CHECK(contains(message, "raise --memory or lower --threads"));
}

TEST_CASE("no more is asked for at a time than the buffers hold") {
  const Scratch scratch;
  Staging staging(scratch / "out");
  std::atomic<uint64_t> open = 0, most = 0, told = 0;
  StreamedFile file = made(0, 20'000'000);
  file.fill = [&](uint64_t, std::span<std::byte> out) {
    const uint64_t now = open += out.size();
    for (uint64_t seen = most; seen < now && !most.compare_exchange_weak(seen, now);) continue;
    std::ranges::fill(out, std::byte{7});
    std::this_thread::yield();
    open -= out.size();
  };
  StreamOptions options = options_of(4, 1 << 20);
  options.written = [&](uint64_t bytes) { told += bytes; };
  stream_files(staging, std::vector{file}, options);
  CHECK(most <= uint64_t{1} << 20);
  CHECK(most > 0);
  CHECK(told == 20'000'000);
}

TEST_CASE("what fill throws ends the work, and nothing is left") {
  for (const int64_t threads : {1, 4}) {
    const Scratch scratch;
    std::vector<StreamedFile> files = some_files();
    files[3].fill = [](uint64_t from, std::span<std::byte>) {
      if (from > 0) fail("convert", "byte {} is not there", from);
    };
    {
      Staging staging(scratch / "out");
      CHECK(
          contains(message_of([&] { stream_files(staging, files, options_of(threads, 1 << 20)); }),
                   "is not there"));
    }
    CHECK(fs::is_empty(scratch.path()));
  }
}

TEST_CASE("files that an earlier run completed are not asked for again") {
  const Scratch scratch;
  std::vector<StreamedFile> files = some_files();
  const auto whole = files;
  files[3].fill = [](uint64_t, std::span<std::byte>) { throw DiskError("[convert] full"); };
  {
    Staging staging(scratch / "out", "job");
    CHECK_THROWS_AS(staging.finish([&] { stream_files(staging, files, options_of(1, 1 << 20)); }),
                    DiskError);
  }
  files = whole;
  std::atomic<uint64_t> told = 0;
  StreamOptions options = options_of(2, 1 << 20);
  options.written = [&](uint64_t bytes) { told += bytes; };
  Staging staging(scratch / "out", "job");
  CHECK(staging.has("file-0"));
  CHECK_FALSE(staging.has("file-3"));
  const auto digests = stream_files(staging, files, options);
  staging.commit();
  CHECK(told < 1'000'000);
  CHECK(told >= 704'097);
  for (size_t n = 0; n < files.size(); ++n) {
    const std::string wanted = content_of(n, files[n].bytes);
    CHECK(file_text(scratch / "out" / files[n].name) == wanted);
    CHECK(digests[n].sha256 == sha256_of(std::as_bytes(std::span(wanted))));
  }
}
