// Writing: files and directories that appear whole or not at all; the safetensors writer.
#include "checkpoint/manifest.h"
#include "core/files.h"
#include "core/sha256.h"
#include "core/staging.h"
#include "moue/log.h"
#include "moue/safetensors.h"
#include "support/files.h"
#include "support/messages.h"
#include "support/scratch.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <csignal>
#include <cstring>

namespace moue {
namespace {

namespace fs = std::filesystem;
using test::message_of;
using test::ScratchDir;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TensorView view(std::string name, Dtype dtype, std::vector<int64_t> shape, std::string_view bytes) {
  return {std::move(name), dtype, std::move(shape), bytes_of(bytes)};
}

// Lines the library logs while this lives.
class LogLines {
 public:
  LogLines()
      : old_(set_log_sink(
            {[this](std::string_view line) { text += std::string(line) + "\n"; }, {}})) {}
  ~LogLines() { set_log_sink(old_); }
  std::string text;

 private:
  LogSink old_;
};

// A file system of 256 KiB, where this process may mount one.
class SmallDisk {
 public:
  explicit SmallDisk(const fs::path& path) : path_(path) {
    fs::create_directories(path);
    mounted_ = ::mount("tmpfs", path.c_str(), "tmpfs", 0, "size=256k") == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }

 private:
  fs::path path_;
  bool mounted_ = false;
};

// No file of this process may grow beyond `bytes` while this lives: a write then fails as on a full
// disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit old_{};
};

}  // namespace

TEST_CASE("SHA-256 is SHA-256", "[writing]") {
  CHECK(sha256_of(bytes_of("")) ==
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_of(bytes_of("abc")) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const ScratchDir scratch;
  const std::string long_text(3'000'001, 'a');  // several buffers and a rest
  Sha256 parts;
  parts.update(bytes_of(std::string_view(long_text).substr(0, 77)));
  parts.update(bytes_of(std::string_view(long_text).substr(77)));
  CHECK(parts.hex() == sha256_of(bytes_of(long_text)));
  CHECK(sha256_of_file(scratch.write("x", long_text)) == sha256_of(bytes_of(long_text)));
  CHECK(sha256_of_file(scratch.write("y", "")) == sha256_of(bytes_of("")));
  CHECK_THROWS_AS(sha256_of_file(scratch / "none"), Error);
}

TEST_CASE("every dtype is written and read back", "[writing]") {
  const ScratchDir scratch;
  const std::string data(48, 'q');  // a multiple of every size, and of 8 elements of 6 bits
  std::vector<TensorView> tensors;
  for (int i = 0; i <= static_cast<int>(Dtype::U64); ++i) {
    const auto dtype = static_cast<Dtype>(i);
    CHECK(dtype_of(dtype_name(dtype)) == dtype);
    tensors.push_back(view(fmt::format("t{}", dtype_name(dtype)), dtype,
                           {2, 48 * 8 / 2 / dtype_bits(dtype)}, data));
  }
  tensors.push_back(view("scalar", Dtype::I8, {}, "s"));
  tensors.push_back(view("empty", Dtype::F32, {0, 7}, ""));
  tensors.push_back(view("\xC3\xA9\n\"\\", Dtype::U8, {1}, "e"));
  const FileDigest digest =
      write_safetensors(scratch / "x", tensors, {{"format", "pt"}, {"k", "\xC3\xA9"}});
  const SafetensorsFile file(scratch / "x");
  CHECK(digest.bytes == fs::file_size(scratch / "x"));
  CHECK(digest.sha256 == sha256_of_file(scratch / "x"));
  CHECK(file.data_offset() % 64 == 0);
  CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}, {"k", "\xC3\xA9"}});
  REQUIRE(file.tensors().size() == tensors.size());
  for (const TensorView& tensor : tensors) {
    const TensorInfo& info = file.at(tensor.name);
    CHECK(info.dtype == tensor.dtype);
    CHECK(info.shape == tensor.shape);
    const auto read = file.read(info);
    CHECK(std::equal(read.begin(), read.end(), tensor.bytes.begin(), tensor.bytes.end()));
  }
  CHECK_FALSE(dtype_of("f32").has_value());
}

TEST_CASE("tensors lie in the given order, same input gives same bytes", "[writing]") {
  const ScratchDir scratch;
  std::vector<TensorView> tensors = {view("z", Dtype::U8, {3}, "abc"),
                                     view("a", Dtype::U8, {2}, "de")};
  write_safetensors(scratch / "1", tensors);
  write_safetensors(scratch / "2", tensors);
  CHECK(test::file_text(scratch / "1") == test::file_text(scratch / "2"));
  CHECK_THAT(
      test::file_text(scratch / "1"),
      Catch::Contains("{\"__metadata__\":{\"format\":\"pt\"},\"z\":{\"dtype\":\"U8\",\"shape\":[3],"
                      "\"data_offsets\":[0,3]},\"a\"") &&
          Catch::EndsWith("abcde"));
  std::swap(tensors[0], tensors[1]);
  write_safetensors(scratch / "3", tensors);
  CHECK(test::file_text(scratch / "1") != test::file_text(scratch / "3"));
  write_safetensors(scratch / "4", {}, {});
  CHECK(test::file_text(scratch / "4").substr(8) == "{}" + std::string(54, ' '));
  CHECK(SafetensorsFile(scratch / "4").tensors().empty());
}

TEST_CASE("streamed, a file has the same bytes", "[writing]") {
  const ScratchDir scratch;
  const std::string large(9 * 1'000'003, 'l'), small = "abcdef";  // several pieces of whole rows
  const std::vector<TensorView> views = {
      view("large", Dtype::U8, {9, 1'000'003}, large), view("empty", Dtype::F32, {0, 7}, ""),
      view("small", Dtype::U8, {3, 2}, small), view("scalar", Dtype::U8, {}, "s")};
  std::vector<TensorStream> streams;
  size_t pieces = 0;
  for (const TensorView& tensor : views) {
    streams.push_back(
        {tensor.name, tensor.dtype, tensor.shape, [&](uint64_t from, std::span<std::byte> out) {
           if (tensor.name == "large") CHECK(out.size() % 1'000'003 == 0);
           std::ranges::copy(tensor.bytes.subspan(from, out.size()), out.begin());
           ++pieces;
         }});
  }
  const FileDigest whole = write_safetensors(scratch / "whole", views);
  const FileDigest streamed = stream_safetensors(scratch / "streamed", streams);
  CHECK(streamed.sha256 == whole.sha256);
  CHECK(streamed.bytes == whole.bytes);
  CHECK(test::file_text(scratch / "streamed") == test::file_text(scratch / "whole"));
  CHECK(pieces == 3 + 2);
  streams[2].read = [](uint64_t, std::span<std::byte>) { fail("test", "broken"); };
  CHECK_THROWS_WITH(stream_safetensors(scratch / "none", streams), "[test] broken");
  CHECK_FALSE(fs::exists(scratch / "none"));
}

TEST_CASE("the writer refuses what no reader would take", "[writing]") {
  const ScratchDir scratch;
  const auto refusal = [&](std::vector<TensorView> tensors,
                           const std::map<std::string, std::string>& metadata = {}) {
    const std::string message =
        message_of([&] { write_safetensors(scratch / "x", tensors, metadata); });
    return message.substr(std::min(message.size(), message.find("/x") + 2));
  };
  CHECK(refusal({view("a", Dtype::U8, {1}, "1"), view("a", Dtype::U8, {1}, "2")}) ==
        ": tensor 'a' would stand twice");
  CHECK(refusal({view("a", Dtype::F32, {2}, "1234567")}) ==
        ": tensor 'a' has 7 bytes, [2] of F32 takes 8");
  CHECK(refusal({view("a", Dtype::F4, {3}, "12")}) ==
        ": tensor 'a' has 2 bytes, [3] of F4 takes no whole number of them");
  CHECK(refusal({view("a", Dtype::U8, {-1}, "")}) ==
        ": tensor 'a' has 0 bytes, [-1] of U8 takes no whole number of them");
  CHECK(refusal({view("__metadata__", Dtype::U8, {1}, "1")}) ==
        ": a tensor cannot be named '__metadata__'");
  CHECK(refusal({view("\xFF", Dtype::U8, {1}, "1")}) == ": a tensor cannot be named '\\xff'");
  CHECK(refusal({}, {{"k", "\xFF"}}) == ": metadata 'k' is not UTF-8");
  CHECK(test::listing(scratch.path()).empty());
  CHECK(refusal({view("a", Dtype::U8, {1}, "1")}) == "");
  CHECK(refusal({view("a", Dtype::U8, {1}, "1")}) ==
        " exists, wanted a new file; remove it or choose another name");
  CHECK_THAT(message_of([&] { write_safetensors(scratch / "none/y", {}); }),
             Catch::EndsWith("none/y cannot be created: No such file or directory"));
}

TEST_CASE("a full disk is one line and leaves nothing", "[writing]") {
  const ScratchDir scratch;
  const SmallDisk disk(scratch / "disk");
  if (!disk.mounted()) {
    WARN(
        "did not run: this process may not mount a tmpfs; the next test stands in with "
        "RLIMIT_FSIZE");
    return;
  }
  const std::string data(1 << 20, 'x');
  const std::vector<TensorView> tensors = {view("a", Dtype::U8, {1 << 20}, data)};
  CHECK_THAT(message_of([&] { write_safetensors(scratch / "disk/x", tensors); }),
             Catch::Equals("[safetensors] " + (scratch / "disk/x").native() +
                           " needs 1.0 MiB, which the disk does not give: No space left on device; "
                           "nothing of it was kept"));
  CHECK_THAT(message_of([&] { write_file_whole(scratch / "disk/y", data); }),
             Catch::EndsWith("No space left on device; nothing of it was kept"));
  CHECK_THAT(
      message_of([&] { require_space(scratch / "disk/new/dir", 1 << 20); }),
      Catch::EndsWith(
          "disk has 0.2 MiB free, wanted 1.0 MiB; free some space or write to another disk"));
  CHECK(message_of([&] { require_space(scratch / "disk/new/dir", 100 << 10); }) == "");
  CHECK(test::listing(scratch / "disk").empty());
  CHECK(message_of([&] {
          Staging staging(scratch / "disk/model");
          test::write_text(staging.path() / "small", "x");
          write_file_whole(staging.path() / "large", data);
        }) != "");
  CHECK(test::listing(scratch / "disk").empty());
  write_file_whole(scratch / "disk/y", "it still works");
  CHECK(test::file_text(scratch / "disk/y") == "it still works");
}

TEST_CASE("a write that fails half-way leaves nothing", "[writing]") {
  const ScratchDir scratch;
  scratch.write("old", "before");
  const std::string data(1 << 20, 'x');
  {
    const FileSizeLimit limit(64 << 10);
    CHECK_THAT(message_of([&] {
                 write_safetensors(scratch / "x",
                                   std::vector{view("a", Dtype::U8, {1 << 20}, data)});
               }),
               Catch::EndsWith("x needs 1.0 MiB, which the disk does not give: File too large; "
                               "nothing of it was kept"));
    CHECK_THAT(message_of([&] { write_file_whole(scratch / "old", data); }),
               Catch::EndsWith(
                   "could not be written after 0.1 MiB: File too large; nothing of it was kept"));
  }
  CHECK(test::listing(scratch.path()) == "old\n");
  CHECK(test::file_text(scratch / "old") == "before");
  CHECK_THAT(message_of([] { write_file_whole("/dev/full/x", "x"); }),
             Catch::EndsWith("Not a directory"));
}

TEST_CASE("a file is replaced whole", "[writing]") {
  const ScratchDir scratch;
  scratch.write("target", "target");
  fs::create_symlink("target", scratch / "link");
  write_file_whole(scratch / "link", "new");
  CHECK(test::file_text(scratch / "target") == "target");  // never through a link
  CHECK(test::file_text(scratch / "link") == "new");
  CHECK_FALSE(fs::is_symlink(scratch / "link"));
  scratch.write(".target.moue-partial", "left by a run that was killed, longer than what comes");
  write_file_whole(scratch / "target", "short");
  CHECK(test::file_text(scratch / "target") == "short");
  CHECK(test::listing(scratch.path()) == "link\ntarget\n");
}

TEST_CASE("a file under construction belongs to one writer", "[writing]") {
  const ScratchDir scratch;
  {
    OutputFile first(scratch / "x", "test", OutputFile::Existing::Replace);
    first.write(bytes_of("first"));
    CHECK(message_of([&] { write_file_whole(scratch / "x", "second"); }) ==
          "[files] " + (scratch / "x").native() + " is being written by another process");
    first.commit();
    CHECK(test::file_text(scratch / "x") == "first");
    OutputFile dropped(scratch / "y", "test", OutputFile::Existing::Refuse);
    dropped.write(bytes_of("dropped"));
  }
  CHECK(test::listing(scratch.path()) == "x\n");
  OutputFile late(scratch / "z", "test", OutputFile::Existing::Refuse);
  scratch.write("z", "came meanwhile");
  CHECK_THAT(message_of([&] { late.commit(); }),
             Catch::EndsWith("z cannot be put in place: File exists"));
  CHECK(test::file_text(scratch / "z") == "came meanwhile");
  fs::create_symlink("x", scratch / ".w.moue-partial");
  CHECK(message_of([&] { write_file_whole(scratch / "w", "bad"); }) != "");
  CHECK(test::file_text(scratch / "x") == "first");
}

TEST_CASE("a directory appears whole", "[writing]") {
  const ScratchDir scratch;
  {
    Staging staging(scratch / "runs/one/model");
    CHECK(staging.path() == scratch / "runs/one/.model.moue-partial");
    test::write_text(staging.path() / "a", "1");
    fs::create_directory(staging.path() / "sub");
    test::write_text(staging.path() / "sub/b", "2");
    fs::create_symlink("nowhere", staging.path() / "link");
    CHECK_FALSE(fs::exists(scratch / "runs/one/model"));
    staging.commit();
  }
  CHECK(
      test::listing(scratch.path()) ==
      "runs\nruns/one\nruns/one/model\nruns/one/model/a\nruns/one/model/link\nruns/one/model/sub\n"
      "runs/one/model/sub/b\n");
}

TEST_CASE("a directory that is not committed leaves nothing", "[writing]") {
  const ScratchDir scratch;
  {
    Staging staging(scratch / "runs/one/model/");
    CHECK(staging.target() == scratch / "runs/one/model");
    test::write_text(staging.path() / "a", "1");
  }
  CHECK(test::listing(scratch.path()).empty());
  fs::create_directory(scratch / "runs");
  { Staging staging(scratch / "runs/model"); }
  CHECK(test::listing(scratch.path()) == "runs\n");
}

TEST_CASE("a directory's target must be free", "[writing]") {
  const ScratchDir scratch;
  fs::create_directory(scratch / "model");
  const std::string exists = " exists, wanted a new directory; remove it or choose another name";
  CHECK(message_of([&] { Staging staging(scratch / "model"); }) ==
        "[files] " + (scratch / "model").native() + exists);
  fs::create_symlink("nowhere", scratch / "link");
  CHECK_THAT(message_of([&] { Staging staging(scratch / "link"); }),
             Catch::EndsWith("link" + exists));
  CHECK_THAT(message_of([&] { Staging staging("."); }), Catch::EndsWith("give it a name"));
  CHECK_THAT(message_of([&] { Staging staging(".."); }), Catch::EndsWith("give it a name"));
  CHECK_THAT(message_of([&] { Staging staging("/"); }), Catch::EndsWith("give it a name"));
  scratch.write("file", "");
  CHECK_THAT(message_of([&] { Staging staging(scratch / "file/model"); }),
             Catch::EndsWith("cannot be created: Not a directory"));
  CHECK(test::listing(scratch.path()) == "file\nlink\nmodel\n");
  {
    Staging staging(scratch / "late");
    fs::create_directory(scratch / "late");
    CHECK_THAT(message_of([&] { staging.commit(); }),
               Catch::EndsWith("late cannot be put in place: File exists"));
  }
  CHECK(test::listing(scratch.path()) == "file\nlate\nlink\nmodel\n");
}

TEST_CASE("a stale directory is named and removed, a live one is left", "[writing]") {
  const ScratchDir scratch;
  const LogLines log;
  scratch.write(".model.moue-partial/half/file", "x");
  {
    Staging staging(scratch / "model");
    CHECK(log.text == "[files] removed " + (scratch / ".model.moue-partial").native() +
                          ", left by a run that was interrupted\n");
    CHECK(fs::is_empty(staging.path()));
    test::write_text(staging.path() / "a", "1");
    CHECK(message_of([&] { Staging second(scratch / "model"); }) ==
          "[files] " + (scratch / "model").native() + " is being made by another process");
    CHECK(fs::exists(staging.path() / "a"));
    staging.commit();
  }
  CHECK(test::listing(scratch.path()) == "model\nmodel/a\n");
  scratch.write(".other.moue-partial", "a file");
  CHECK_THAT(message_of([&] { Staging staging(scratch / "other"); }),
             Catch::Contains("is in the way of"));
  fs::create_directory(scratch / "victim");
  scratch.write("victim/file", "x");
  fs::create_directory_symlink("victim", scratch / ".third.moue-partial");
  CHECK_THAT(message_of([&] { Staging staging(scratch / "third"); }),
             Catch::Contains("is in the way of"));
  CHECK(fs::exists(scratch / "victim/file"));
}

TEST_CASE("free space is asked for in time", "[writing]") {
  const ScratchDir scratch;
  CHECK(message_of([&] { require_space(scratch / "not/yet/there", 1); }) == "");
  CHECK(message_of([] { require_space("relative", 1); }) == "");
  CHECK_THAT(message_of([&] { require_space(scratch / "not/yet/there", uint64_t{1} << 62); }),
             Catch::StartsWith("[files] " + scratch.path().native() + " has ") &&
                 Catch::Contains(" MiB free, wanted 4398046511104.0 MiB; free some space"));
}

TEST_CASE("lines and progress go to the sink", "[writing]") {
  std::vector<double> done;
  LogLines log;
  log_line("train", "step {} loss {:.2f}", 40, 2.3141);
  LogSink old =
      set_log_sink({{}, [&](const Progress& progress) { done.push_back(progress.done); }});
  log_line("train", "dropped");
  log_progress({"train", 3, 10, "steps", ""});
  set_log_sink(old);
  log_progress({"train", 4, 10, "steps", ""});
  log_text("plan", "again");
  CHECK(log.text == "[train] step 40 loss 2.31\n[plan] again\n");
  CHECK(done == std::vector<double>{3});
}

}  // namespace moue
