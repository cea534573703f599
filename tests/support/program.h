// Running the program from tests: its streams, its exit code, a folder for what it writes.
#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "support/scratch.h"

namespace moue::test {

namespace fs = std::filesystem;

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// The program lies beside the test program.
inline std::string program() { return fs::read_symlink("/proc/self/exe").parent_path() / "moue"; }

struct Outcome {
  int code = -1;
  std::string out, err;
};

inline Outcome run(const std::string& words) {
  const ScratchDir folder;
  const auto file = [&](const char* name) { return (folder / name).string(); };
  const std::string command = program() + " " + words + " > " + file("out") + " 2> " + file("err");
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, file_text(file("out")),
          file_text(file("err"))};
}

/// recipes/pico.toml with the run in `folder`; returns its path.
inline std::string pico_recipe(const ScratchDir& folder) {
  std::string text = file_text("recipes/pico.toml");
  const std::string run = "\"runs/pico\"";
  text.replace(text.find(run), run.size(), "\"" + folder.path().string() + "\"");
  return folder.write("pico.toml", text).string();
}

}  // namespace moue::test
