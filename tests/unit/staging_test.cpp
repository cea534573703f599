// Staging: what an interrupted run completed is kept for the same job, verified, not trusted.
#include "core/staging.h"

#include "core/sha256.h"
#include "moue/error.h"
#include "moue/log.h"
#include "support/faults.h"
#include "support/files.h"
#include "support/messages.h"
#include "support/scratch.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>

namespace moue {
namespace {

namespace fs = std::filesystem;
using test::Fault;
using test::FaultyDisk;
using test::message_of;
using test::ScratchDir;

FileDigest digest_of(const std::string& text) {
  return {text.size(), sha256_of(std::as_bytes(std::span(text)))};
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

const std::string kLarge(1 << 20, 'x');

// A run that completes "large" and "small", then meets a full disk.
std::string interrupted(const ScratchDir& scratch, const std::string& job = "job") {
  Staging staging(scratch / "model", job);
  return message_of([&] {
    staging.finish([&] {
      write_file_whole(staging.path() / "large", kLarge);
      staging.done("large", digest_of(kLarge));
      write_file_whole(staging.path() / "small", "few bytes");
      staging.done("small", digest_of("few bytes"));
      write_file_whole(staging.path() / "half", "not noted");
      fail_disk("test", "no more");
    });
  });
}

fs::path partial(const ScratchDir& scratch) { return scratch / ".model.moue-partial"; }

// What the next run of the job finds complete.
std::string kept(const ScratchDir& scratch, const std::string& job = "job") {
  std::string names;
  const Staging staging(scratch / "model", job);
  for (const char* name : {"large", "small", "half"}) {
    if (const auto digest = staging.has(name)) names += fmt::format("{}:{} ", name, digest->bytes);
  }
  return names;
}

// Changes one byte and gives the file its old time of change, as a failing disk would.
void damage(const fs::path& file, off_t at) {
  struct stat before {};
  REQUIRE(::stat(file.c_str(), &before) == 0);
  const int fd = ::open(file.c_str(), O_WRONLY);
  REQUIRE(::pwrite(fd, "y", 1, at) == 1);
  const timespec times[] = {before.st_atim, before.st_mtim};
  REQUIRE(::futimens(fd, times) == 0);
  ::close(fd);
}

}  // namespace

TEST_CASE("an interrupted run of the same job is gone on with", "[staging]") {
  const ScratchDir scratch;
  const LogLines log;
  CHECK(interrupted(scratch) == "[test] no more; 2 files, 1.0 MiB, complete in " +
                                    partial(scratch).native() +
                                    ": run the same command again to go on");
  CHECK(test::listing(partial(scratch)) == ".moue-journal\nlarge\nsmall\n");
  CHECK(log.text.empty());
  {
    Staging staging(scratch / "model", "job");
    CHECK(log.text == "[files] going on in " + partial(scratch).native() +
                          ", left by a run that was interrupted: 2 files, 1.0 MiB complete\n");
    CHECK(staging.has("large")->sha256 == digest_of(kLarge).sha256);
    CHECK_FALSE(staging.has("half"));
    CHECK(staging.kept_bytes() == kLarge.size() + 9);
    staging.finish([&] { write_file_whole(staging.path() / "half", "whole"); });
  }
  CHECK(test::listing(scratch.path()) == "model\nmodel/half\nmodel/large\nmodel/small\n");
  CHECK(test::file_text(scratch / "model/large") == kLarge);
}

TEST_CASE("no memory is no reason to lose what is complete", "[staging]") {
  const ScratchDir scratch;
  {
    Staging staging(scratch / "model", "job");
    CHECK_THROWS_AS(staging.finish([&] {
      write_file_whole(staging.path() / "small", "few bytes");
      staging.done("small", digest_of("few bytes"));
      throw std::bad_alloc();
    }),
                    std::bad_alloc);
  }
  CHECK(kept(scratch) == "small:9 ");
}

TEST_CASE("a journal that was torn by a full disk is written anew", "[staging]") {
  const ScratchDir scratch;
  {
    Staging staging(scratch / "model", "job");
    const auto complete = [&](const char* name, const std::string& text) {
      write_file_whole(staging.path() / name, text);
      staging.done(name, digest_of(text));
    };
    CHECK_THROWS_AS(staging.finish([&] {
      const std::string text = test::file_text(staging.path() / ".moue-journal");
      test::write_text(staging.path() / ".moue-journal", text + "{\"name\": \"tor");
      complete("large", kLarge);
      complete("small", "few bytes");
      throw Interrupted("[test] stopped");
    }),
                    Interrupted);
  }
  CHECK(kept(scratch) == "large:1048576 small:9 ");
}

TEST_CASE("another job's directory is named and removed", "[staging]") {
  const ScratchDir scratch;
  interrupted(scratch);
  const LogLines log;
  CHECK(kept(scratch, "other") == "");
  CHECK(log.text == "[files] removed " + partial(scratch).native() +
                        ", left by a run that was interrupted: its source, plan or settings were "
                        "others\n");
  CHECK(test::listing(scratch.path()).empty());
}

TEST_CASE("what was left is verified, not trusted", "[staging]") {
  const ScratchDir scratch;
  interrupted(scratch);
  const LogLines log;
  const fs::path large = partial(scratch) / "large";
  SECTION("a byte in a sampled block") { damage(large, (1 << 20) - 7); }
  SECTION("a byte between the samples: the time of change gives it away") { damage(large, 5000); }
  SECTION("cut") { fs::resize_file(large, 1000); }
  SECTION("gone") { fs::remove(large); }
  SECTION("a link to a file of the same bytes") {
    fs::rename(large, scratch / "elsewhere");
    fs::create_symlink(scratch / "elsewhere", large);
  }
  SECTION("another name of it elsewhere") { fs::create_hard_link(large, scratch / "elsewhere"); }
  {
    const Staging staging(scratch / "model", "job");
    CHECK_FALSE(staging.has("large"));
    CHECK_FALSE(fs::exists(fs::symlink_status(large)));
    CHECK(staging.has("small"));
  }
  CHECK(test::contains(log.text, "[files] 'large' is not as it was left: it is written again\n"));
}

TEST_CASE("a file with another inode or time is hashed whole and kept", "[staging]") {
  const ScratchDir scratch;
  interrupted(scratch);
  const fs::path large = partial(scratch) / "large";
  fs::copy_file(large, scratch / "copy");
  fs::rename(scratch / "copy", large);
  FaultyDisk disk;
  interrupted(scratch);  // goes on: what it writes is the same
  CHECK(disk.bytes() > kLarge.size());
  CHECK(kept(scratch) == "large:1048576 small:9 ");
}

TEST_CASE("a journal is read with suspicion", "[staging]") {
  const ScratchDir scratch;
  interrupted(scratch);
  const fs::path journal = partial(scratch) / ".moue-journal";
  const std::string text = test::file_text(journal);
  const auto with = [&](const std::string& changed) {
    test::write_text(journal, changed);
    const std::string found = kept(scratch);
    fs::remove_all(partial(scratch));
    interrupted(scratch);
    return found;
  };
  CHECK(with(text) == "large:1048576 small:9 ");
  CHECK(with(text.substr(0, text.size() - 1)) == "large:1048576 ");  // torn
  CHECK(with(text.substr(0, text.size() - 30) + "\n") == "large:1048576 ");
  CHECK(with("") == "");
  CHECK(with("nonsense\n" + text) == "");
  CHECK(with(text.substr(0, text.find('\n') + 1) + "{}\n[1]\n\xff\n") == "");
  std::string elsewhere = text;
  elsewhere.replace(elsewhere.find("\"large\""), 7, "\"../large\"");
  scratch.write("large", kLarge);
  CHECK(with(elsewhere) == "small:9 ");
  CHECK(fs::exists(scratch / "large"));
}

TEST_CASE("bad input removes what was begun, a disk that refuses before anything was complete too",
          "[staging]") {
  const ScratchDir scratch;
  const auto run = [&](auto what) {
    Staging staging(scratch / "runs/model", "job");
    return message_of([&] { staging.finish(what); });
  };
  CHECK(run([] { fail("test", "bad input"); }) == "[test] bad input");
  CHECK(test::listing(scratch.path()).empty());
  CHECK(run([] { fail_disk("test", "full"); }) ==
        "[test] full; nothing of it was complete, the same command starts anew");
  CHECK(test::listing(scratch.path()).empty());
  {
    Staging staging(scratch / "runs/model", "job");
    CHECK_THROWS_AS(staging.finish([&] {
      write_file_whole(staging.path() / "one", "1");
      staging.done("one", digest_of("1"));
      throw Interrupted("[test] stopped");
    }),
                    Interrupted);
  }
  CHECK(test::listing(scratch.path()) ==
        "runs\nruns/.model.moue-partial\nruns/.model.moue-partial/.moue-journal\n"
        "runs/.model.moue-partial/one\n");
}

TEST_CASE("a directory is replaced by an exchange of names", "[staging]") {
  const ScratchDir scratch;
  scratch.write("model/old", "old");
  const auto replace = [&] {
    Staging staging(scratch / "model", "", Staging::Existing::Replace);
    test::write_text(staging.path() / "new", "new");
    staging.commit();
  };
  SECTION("exchanged") { replace(); }
  SECTION("renamed twice, where names cannot be exchanged") {
    FaultyDisk disk;
    disk.lacks(disk::Call::Exchange);
    replace();
  }
  CHECK(test::listing(scratch.path()) == "model\nmodel/new\n");
}

TEST_CASE("two processes do not make one directory", "[staging]") {
  const ScratchDir scratch;
  const Staging ours(scratch / "model", "job");
  const int code = test::in_child([&] {
    const std::string message = message_of([&] { Staging theirs(scratch / "model", "job"); });
    const std::string wanted =
        "[files] " + (scratch / "model").native() + " is being made by another process";
    ::_exit(message == wanted ? 7 : 8);
  });
  CHECK(code == 7);
  CHECK(fs::exists(ours.path()));
}

TEST_CASE("files are filled by several writers, each byte once", "[staging]") {
  const ScratchDir scratch;
  const auto bytes = [](std::string_view text) { return std::as_bytes(std::span(text)); };
  const auto write = [&](const char* name, std::initializer_list<uint64_t> at) {
    OutputFile file(scratch / name, "test", OutputFile::Existing::Refuse);
    file.reserve(1 << 20);
    for (const uint64_t offset : at) file.write_at(offset, bytes("four"));
    file.commit();
  };
  write("whole", {8, 0, 4});
  CHECK(test::file_text(scratch / "whole") == "fourfourfour");
  CHECK_THROWS_AS(write("hole", {0, 8}), std::logic_error);
  CHECK_THROWS_AS(write("twice", {0, 4, 4}), std::logic_error);
  CHECK(test::listing(scratch.path()) == "whole\n");
}

TEST_CASE("blocks of all files are taken before the first is written", "[staging]") {
  const ScratchDir scratch;
  const std::vector<Reservation> files = {{"a", 1 << 20}, {"b", 0}, {"c", 5000}};
  reserve_files(scratch.path(), files);
  CHECK(test::listing(scratch.path()) == ".a.moue-partial\n.c.moue-partial\n");
  struct stat status {};
  REQUIRE(::stat((scratch / ".a.moue-partial").c_str(), &status) == 0);
  CHECK(status.st_blocks * 512 >= 1 << 20);
  write_file_whole(scratch / "a", "short after all");
  CHECK(test::file_text(scratch / "a") == "short after all");
  FaultyDisk disk(Fault::NoSpace, 3);  // open, reserve, close; open, reserve
  fs::remove(scratch / ".c.moue-partial");
  CHECK_THAT(message_of([&] { reserve_files(scratch.path(), files); }),
             Catch::EndsWith(" does not take 1.0 MiB: No space left on device; free some space or "
                             "write to another disk"));
  CHECK(test::listing(scratch.path()) == "a\n");
}

}  // namespace moue
