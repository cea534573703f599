// The program from outside: streams, exit codes, what it refuses, how fast it starts.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace fs = std::filesystem;

namespace {

const char* kMixtral = "tests/golden/families/mixtral";
const char* kOther = "tests/golden/families/mixtral_sliding_tied";

std::string text_of(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// A directory in the system's temporary folder, removed with its contents.
struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "moue-cli-XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path); }
  std::string at(const std::string& name) const { return (path / name).string(); }
  fs::path path;
};

/// The program lies beside the test program.
std::string program() { return fs::read_symlink("/proc/self/exe").parent_path() / "moue"; }

struct Outcome {
  int code = -1;
  std::string out, err;
};

Outcome run(const std::string& words) {
  const Folder folder;
  const std::string command =
      program() + " " + words + " > " + folder.at("out") + " 2> " + folder.at("err");
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text_of(folder.at("out")),
          text_of(folder.at("err"))};
}

}  // namespace

TEST_CASE("help and version are results", "[unit][cli]") {
  const Outcome help = run("--help");
  CHECK(help.code == 0);
  CHECK(has(help.out, "validate"));
  CHECK(help.err.empty());
  CHECK(run("train --help").code == 0);
  CHECK(has(run("--version").out, "moue "));
}

TEST_CASE("an error is one line on stderr and exit code 2", "[unit][cli]") {
  for (const char* words : {"", "inspekt x", "inspect", "plan x --grup 2", "inspect /nowhere",
                            "plan /tmp --recipe /nowhere"}) {
    INFO(words);
    const Outcome outcome = run(words);
    CHECK(outcome.code == 2);
    CHECK(outcome.out.empty());
    CHECK(outcome.err.starts_with("["));
    CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
  }
}

TEST_CASE("with --json an error is an object on stdout too", "[unit][cli]") {
  const Outcome outcome = run("inspect /nowhere --json");
  CHECK(outcome.code == 2);
  const auto object = nlohmann::json::parse(outcome.out);
  CHECK(object["error"]["stage"] == "checkpoint");
  CHECK(has(object["error"]["message"], "/nowhere"));
  CHECK(object["error"]["exit_code"] == 2);
  CHECK(nlohmann::json::parse(run("plan --grup 2 --json").out)["error"]["stage"] == "recipe");
}

TEST_CASE("inspect answers in text and in JSON", "[unit][cli]") {
  const Outcome text = run(std::string("inspect ") + kMixtral);
  CHECK(text.code == 0);
  CHECK(has(text.out, "inspect: "));
  CHECK(has(text.out, "mixtral"));
  CHECK(text.err.empty());
  const auto object = nlohmann::json::parse(run(std::string("inspect --json ") + kMixtral).out);
  CHECK(object["verb"] == "inspect");
  CHECK(object["passed"] == true);
}

TEST_CASE("a full disk behind stdout is an error", "[unit][cli]") {
  const std::string command = program() + " inspect " + kMixtral + " > /dev/full 2> /dev/null";
  CHECK(WEXITSTATUS(std::system(command.c_str())) == 2);
}

TEST_CASE("plan writes into the run's directory once and replaces what is named", "[unit][cli]") {
  const Folder folder;
  std::ofstream(folder.at("a.toml"))
      << "source = '" << kMixtral << "'\nout = '" << folder.at("run") << "'\n";
  const std::string plan = "plan --recipe " + folder.at("a.toml");
  const Outcome first = run(plan);
  CHECK(first.code == 0);
  CHECK(has(first.err, "topology = \"half_staggered\""));
  CHECK(fs::exists(folder.at("run/plan.json")));
  CHECK(fs::exists(folder.at("run/plan.svg")));
  CHECK(text_of(folder.at("run/recipe.toml")).starts_with("# The last run's recipe"));
  const Outcome second = run(plan);
  CHECK(second.code == 2);
  CHECK(has(second.err, "plan.json exists; name it with --out to replace it"));
  CHECK(run(plan + " --topology vanilla --out " + folder.at("run/plan.json")).code == 0);
  CHECK(has(text_of(folder.at("run/recipe.toml")), "topology = \"vanilla\""));
  CHECK(run(plan + " --quiet --out " + folder.at("run/plan.json")).err.empty());
}

TEST_CASE("a recipe of the user's own in the run's directory is left alone", "[unit][cli]") {
  const Folder folder;
  const std::string text =
      "source = '" + std::string(kMixtral) + "'\nout = '" + folder.path.string() + "'\n";
  std::ofstream(folder.at("recipe.toml")) << text;
  CHECK(run("plan --recipe " + folder.at("recipe.toml")).code == 0);
  CHECK(text_of(folder.at("recipe.toml")) == text);
}

TEST_CASE("convert refuses what exists and a plan of another source", "[unit][cli]") {
  const Folder folder;
  const std::string convert = std::string("convert ") + kMixtral + " --out " + folder.at("model");
  REQUIRE(run(std::string("plan ") + kOther + " --out " + folder.at("other.json")).code == 0);
  const Outcome foreign = run(convert + " --plan " + folder.at("other.json"));
  CHECK(foreign.code == 2);
  CHECK_FALSE(fs::exists(folder.at("model")));
  CHECK(run(convert).code == 0);
  CHECK(fs::exists(folder.at("model/config.json")));
  const auto written = fs::last_write_time(folder.at("model/config.json"));
  const Outcome again = run(convert);
  CHECK(again.code == 2);
  CHECK(has(again.err, folder.at("model")));
  CHECK(fs::last_write_time(folder.at("model/config.json")) == written);
}

TEST_CASE("a verb that needs LibTorch says how to get it", "[unit][cli]") {
  if (fs::exists(fs::path(program()).parent_path() / "libmoue_torch.so")) return;
  const Outcome outcome = run(std::string("measure ") + kMixtral +
                              " --tokens tests/golden/tokens/pico.u16 --out /tmp/x.safetensors");
  CHECK(outcome.code == 2);
  CHECK(has(outcome.err, "scripts/setup"));
}

TEST_CASE("inspect of a small model starts at once", "[unit][cli][no_asan]") {
  double best = 1e9;
  for (int i = 0; i < 10; ++i) {
    const auto begun = std::chrono::steady_clock::now();
    REQUIRE(run(std::string("inspect ") + kMixtral).code == 0);
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
  }
  CHECK(best < 0.1);  // 0.01 s on an idle machine, the shell included
}
