// The one way to the disk: no other source calls the system's file functions, and the hook sees
// every call.
#include "core/disk.h"

#include "core/files.h"
#include "core/tree.h"
#include "moue/error.h"
#include "support/faults.h"
#include "support/files.h"
#include "support/messages.h"
#include "support/scratch.h"

#include <fcntl.h>

#include <catch2/catch.hpp>

#include <array>
#include <regex>
#include <set>
#include <sstream>

namespace moue {
namespace {

namespace fs = std::filesystem;
using disk::Call;
using test::Fault;
using test::FaultyDisk;
using test::message_of;
using test::ScratchDir;

// A line that touches the disk by itself: a system call in the global namespace, a stream, or one
// of std::filesystem's functions that ask it. Paths, and what merely reckons with them, are free.
bool touches_disk(const std::string& line) {
  static const std::regex kSystem(
      R"((^|[^\w>])::(f?open(at|dir)?|creat|p?read(dir|v|link)?|p?write(v)?|fsync|fdatasync|syncfs|)"
      R"(f?truncate|(posix_)?fallocate|rename(at2?)?|link(at)?|symlink(at)?|unlink(at)?|mkdir(at)?|)"
      R"(rmdir|remove|copy_file_range|sendfile|[lf]?stat(at|vfs)?|fdopen(dir)?|flock|fcntl|)"
      R"(f?statvfs|close(dir)?|realpath|access|f?ch(mod|own)|mkstemp|utimensat)\()");
  static const std::regex kStream(R"(\b(std::)?[io]?fstream\b|\bfopen\()");
  static const std::regex kFilesystem(
      R"(\b(fs|filesystem)::(exists|remove(_all)?|rename|copy(_file|_symlink)?|is_\w+|create_\w+|)"
      R"(file_size|resize_file|(recursive_)?directory_(iterator|entry)|(weakly_)?canonical|)"
      R"(read_symlink|(symlink_)?status|equivalent|last_write_time|space|hard_link_count|)"
      R"(permissions)\b)");
  return std::regex_search(line, kSystem) || std::regex_search(line, kStream) ||
         std::regex_search(line, kFilesystem);
}

// Files whose n-th call is counted by kind.
uint64_t calls_of(Call call, const std::function<void()>& run) {
  FaultyDisk disk;
  run();
  return disk.calls(call);
}

}  // namespace

TEST_CASE("no source but one touches the disk by itself", "[disk]") {
  static const std::set<std::string> kEndings = {".cpp", ".h", ".cu", ".cuh"};
  size_t files = 0;
  for (const char* folder : {"src", "include", "converters"}) {
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      const fs::path& path = entry.path();
      if (!kEndings.contains(path.extension()) || path == "src/core/disk.cpp") continue;
      ++files;
      std::istringstream lines(test::file_text(path));
      for (std::string line; std::getline(lines, line);) {
        if (touches_disk(line)) FAIL_CHECK(path.native() + ": " + line);
      }
    }
  }
  CHECK(files > 100);
}

TEST_CASE("lines that touch the disk are seen, others are not", "[disk]") {
  for (const char* line :
       {"  const int fd = ::open(path.c_str(), O_RDONLY);", "if (::fsync(fd) != 0)", "::close(fd);",
        "return !::rename(a, b);", "::renameat2(AT_FDCWD, a, AT_FDCWD, b, 0)", "(::lstat(x, &s))",
        "  std::ifstream in(file);", "std::ofstream stream_;", "#include <fstream>",
        "  fs::remove_all(path);", "std::filesystem::rename(a, b, error);",
        "for (auto& e : fs::directory_iterator(d))", "if (fs::exists(file, ignored))",
        "fs::copy_file(a, b);", "::copy_file_range(a, 0, b, 0, n, 0)",
        "FILE* f = fopen(name, x);"}) {
    INFO(line);
    CHECK(touches_disk(line));
  }
  for (const char* line :
       {"  disk::open(path, O_RDONLY);", "Model::open(checkpoint, how);", "Config::read(file)",
        "void TokenFile::read(uint64_t position)", "std::ranges::copy(a, b);", "fs::path file;",
        "fs::absolute(info.dli_fname)", "::mmap(nullptr, n, 0, 0, -1, 0);", "#include <filesystem>",
        "void OutputFile::write(bytes)", "std::remove_if(a, b, c)", "path.lexically_normal()"}) {
    INFO(line);
    CHECK_FALSE(touches_disk(line));
  }
}

TEST_CASE("an interrupted call is made again, half a transfer is gone on with", "[disk]") {
  const ScratchDir scratch;
  const std::string text = "not a short line at all";
  for (const Fault fault : {Fault::Interruption, Fault::Short}) {
    const uint64_t calls = [&] {
      FaultyDisk disk;
      write_file_whole(scratch / "x", text);
      return disk.calls();
    }();
    REQUIRE(calls > 8);
    uint64_t met = 0;
    for (uint64_t at = 0; at < calls; ++at) {
      fs::remove(scratch / "x");
      FaultyDisk disk(fault, at);
      CHECK(message_of([&] { write_file_whole(scratch / "x", text); }) == "");
      CHECK(test::file_text(scratch / "x") == text);
      met += disk.met().has_value();
    }
    CHECK(met == (fault == Fault::Short ? 1 : calls));
  }
}

TEST_CASE("the disk's answer is in the message", "[disk]") {
  const ScratchDir scratch;
  scratch.write("x", "bytes");
  const auto refusal = [&](Fault fault, uint64_t at, const std::function<void()>& run) {
    FaultyDisk disk(fault, at);
    return message_of(run);
  };
  const std::string name = (scratch / "x").native();
  CHECK(refusal(Fault::InputOutput, 0, [&] { read_whole_file(scratch / "x", "test"); }) ==
        "[test] " + name + " cannot be opened: Input/output error");
  CHECK(refusal(Fault::InputOutput, 2, [&] { read_whole_file(scratch / "x", "test"); }) ==
        "[test] " + name + " cannot be read at byte 0: Input/output error");
  CHECK(refusal(Fault::InputOutput, 0, [&] { stands(scratch / "x"); }) ==
        "[files] " + name + " cannot be looked up: Input/output error");
  CHECK(refusal(Fault::InputOutput, 1, [&] { names_in(scratch.path(), "test"); }) ==
        "[test] " + scratch.path().native() + " cannot be read: Input/output error");
  CHECK(refusal(Fault::NoSpace, 0, [&] { make_directories(scratch / "a/b", "test"); }) ==
        "[files] " + (scratch / "a/b").native() + " cannot be looked up: No space left on device");
  CHECK(refusal(Fault::NoSpace, 4, [&] { make_directories(scratch / "a/b", "test"); }) ==
        "[test] " + (scratch / "a/b").native() + " cannot be created: No space left on device");
  CHECK_FALSE(fs::exists(scratch / "a"));  // what it had made is gone
}

TEST_CASE("calls and bytes are counted", "[disk]") {
  const ScratchDir scratch;
  scratch.write("from", std::string(1000, 'x'));
  CHECK(calls_of(Call::Sync, [&] { write_file_whole(scratch / "y", "1"); }) == 2);
  CHECK(calls_of(Call::Rename, [&] { write_file_whole(scratch / "y", "1"); }) == 1);
  FaultyDisk disk;
  copy_file_whole(scratch / "from", scratch / "to", "test");
  CHECK(disk.bytes() == 2000);
  disk.lacks(Call::CopyRange);
  copy_file_whole(scratch / "from", scratch / "again", "test");
  CHECK(disk.bytes() == 4000);
  CHECK(test::file_text(scratch / "again") == std::string(1000, 'x'));
}

TEST_CASE("a tree is removed without following links", "[disk]") {
  const ScratchDir scratch;
  scratch.write("kept/file", "x");
  scratch.write("tree/a/b/c", "x");
  fs::create_directory_symlink(scratch / "kept", scratch / "tree/a/link");
  fs::create_symlink("nowhere", scratch / "tree/dangling");
  CHECK(files_below(scratch / "tree", "test") ==
        std::vector<std::string>{"a/b/c", "a/link", "dangling"});
  CHECK(remove_tree(scratch / "tree") == 0);
  CHECK(remove_tree(scratch / "tree") == 0);
  CHECK(test::listing(scratch.path()) == "kept\nkept/file\n");
  fs::create_directory_symlink(scratch / "kept", scratch / "link");
  CHECK(remove_tree(scratch / "link") == 0);
  CHECK(test::listing(scratch.path()) == "kept\nkept/file\n");
  FaultyDisk disk(Fault::InputOutput, 1);
  CHECK(remove_tree(scratch / "kept") == EIO);
}

}  // namespace moue
