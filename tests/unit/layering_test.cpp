// The ladder of CONTRIBUTING.md as numbers, held against every include of the sources.
#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "support/scratch.h"

namespace fs = std::filesystem;

namespace {

/// A room may include rooms with a lower number and itself. Within a level, decimals say who stands
/// on whom.
const std::map<std::string, double> kLevel = {
    {"core", 0},     {"report", 0}, {"checkpoint", 1}, {"tokens", 1},  {"kernels", 1},
    {"family", 1.1}, {"pool", 1.2}, {"statistics", 2}, {"inspect", 2}, {"plan", 2.1},
    {"convert", 3},  {"model", 3},  {"measure", 4},    {"train", 4.1}, {"validate", 4},
    {"torch", 4.5},  {"recipe", 5}, {"cli", 6}};

/// The room of each public header that does not carry its room's name.
const std::map<std::string, std::string> kRoom = {{"error", "core"},
                                                  {"digest", "core"},
                                                  {"config", "core"},
                                                  {"log", "core"},
                                                  {"version", "core"},
                                                  {"safetensors", "checkpoint"},
                                                  {"weight_file", "checkpoint"},
                                                  {"spec", "family"},
                                                  {"converter", "family"},
                                                  {"initial", "convert"},
                                                  {"moue", "cli"}};

/// Other libraries, by how their includes begin, and the rooms that may name them.
const std::map<std::string, std::set<std::string>> kLibraries = {
    {"torch/", {"model", "measure", "train", "validate"}},
    {"ATen/", {"model", "measure", "train", "validate"}},
    {"c10/", {"model", "measure", "train", "validate"}},
    {"CLI/", {"recipe"}},
    {"toml++/", {"recipe"}},
    {"catch2/", {}},
};

std::string stem(const std::string& include) { return include.substr(0, include.rfind('.')); }

/// "plan" for "plan/topology.h" and for "moue/plan.h"; "" for what is not ours.
std::string room_of(const std::string& include) {
  const std::string first = include.substr(0, include.find('/'));
  if (first == "moue") {
    const std::string name = stem(include).substr(5);
    const auto renamed = kRoom.find(name);
    return renamed == kRoom.end() ? name : renamed->second;
  }
  // src/torch has no headers: "torch/" is always the library.
  return kLevel.contains(first) && first != "torch" ? first : "";
}

double level_of(const std::string& include) {
  const auto level = kLevel.find(room_of(include));
  return level == kLevel.end() ? 99 : level->second;
}

struct Source {
  std::string path;  ///< from the repository's root
  std::string room;  ///< "" for tests
  double level = 99;
  std::vector<std::string> includes;
};

Source source_of(const std::string& path, const std::string& text) {
  Source source{path, "", 99, {}};
  const auto below = [&](const std::string& folder) {
    return path.starts_with(folder) ? path.substr(folder.size()) : "";
  };
  if (const std::string inner = below("src/"); !inner.empty()) {
    source.room = inner.substr(0, inner.find('/'));
    source.level = kLevel.contains(source.room) ? kLevel.at(source.room) : 0;
  } else if (const std::string header = below("include/"); !header.empty()) {
    source.room = room_of(header);
    source.level = level_of(header);
  } else if (path.starts_with("converters/")) {
    source.room = "converters";
    source.level = 1.15;
  }
  static const std::regex kInclude("^\\s*#\\s*include\\s*[<\"]([^>\"]+)[>\"]");
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (std::regex_search(line, match, kInclude)) source.includes.push_back(match[1]);
  }
  return source;
}

bool in(const std::string& text, const std::string& start) { return text.starts_with(start); }

bool is_torch(const std::string& include) {
  return in(include, "torch/") || in(include, "ATen/") || in(include, "c10/");
}

std::vector<std::string> ladder_faults(const Source& source) {
  std::vector<std::string> faults;
  for (const auto& include : source.includes) {
    const std::string room = room_of(include);
    if (room.empty() || room == source.room) continue;
    // moue.h is the table of contents: it may include every header, and no source of the library
    // includes it.
    if (source.path == "include/moue/moue.h") continue;
    if (level_of(include) >= source.level) faults.push_back(source.path + " includes " + include);
  }
  return faults;
}

std::vector<std::string> library_faults(const Source& source) {
  std::vector<std::string> faults;
  for (const auto& include : source.includes) {
    for (const auto& [start, rooms] : kLibraries) {
      if (in(include, start) && !rooms.contains(source.room))
        faults.push_back(source.path + " includes " + include);
    }
    // A header another library's reader includes stays light: nlohmann's body and torch stay out of
    // it.
    if (in(source.path, "include/") && include == "nlohmann/json.hpp") {
      faults.push_back(source.path + " includes " + include);
    }
    if (in(source.path, "include/") && is_torch(include) && source.path != "include/moue/model.h") {
      faults.push_back(source.path + " includes " + include);
    }
    if (source.room == "converters" && include.find('/') != std::string::npos &&
        include != "moue/converter.h" && include != "moue/family.h" && include != "moue/config.h" &&
        include != "moue/error.h" && include != "moue/spec.h") {
      faults.push_back(source.path + " includes " + include);
    }
  }
  return faults;
}

/// A .cu file is an island: its own header, CUDA, the other kernels' headers.
std::vector<std::string> island_faults(const Source& source) {
  std::vector<std::string> faults;
  for (const auto& include : source.includes) {
    const bool heavy = in(include, "fmt/") || is_torch(include) || in(include, "moue/") ||
                       in(include, "nlohmann/");
    if (heavy || (!room_of(include).empty() && room_of(include) != "kernels")) {
      faults.push_back(source.path + " includes " + include);
    }
  }
  return faults;
}

/// Catch2 before torch makes torch's CHECK win in silence: torch comes in through
/// support/torch_test.h alone, first.
std::vector<std::string> test_faults(const Source& source) {
  std::vector<std::string> faults;
  const auto& includes = source.includes;
  const auto torch = std::find(includes.begin(), includes.end(), "support/torch_test.h");
  if (torch != includes.end() && std::find(includes.begin(), torch, "catch2/catch.hpp") != torch) {
    faults.push_back(source.path + " includes catch2/catch.hpp before support/torch_test.h");
  }
  const bool is_border = source.path.find("support/torch_") != std::string::npos;
  const auto names_torch = [](const std::string& include) {
    return is_torch(include) || include == "moue/model.h";
  };
  const auto first = std::find_if(includes.begin(), includes.end(), names_torch);
  if (!is_border && first != includes.end() && torch == includes.end()) {
    faults.push_back(source.path + " includes " + *first + " without support/torch_test.h");
  }
  return faults;
}

std::vector<std::string> faults_of(const Source& source) {
  std::vector<std::vector<std::string>> parts;
  if (in(source.path, "tests/") || in(source.path, "examples/")) {
    parts = {test_faults(source)};
  } else if (source.path.ends_with(".cu")) {
    parts = {island_faults(source)};
  } else {
    parts = {ladder_faults(source), library_faults(source)};
  }
  std::vector<std::string> faults;
  for (const auto& part : parts) faults.insert(faults.end(), part.begin(), part.end());
  return faults;
}

std::vector<fs::path> sources() {
  static const std::set<std::string> kEndings = {".cpp", ".h", ".cu", ".cuh"};
  std::vector<fs::path> files;
  for (const char* folder : {"src", "include", "converters", "tests", "examples"}) {
    if (!fs::exists(folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (kEndings.contains(entry.path().extension().string())) files.push_back(entry.path());
    }
  }
  return files;
}

std::vector<std::string> faults_in(const std::string& path, const std::string& text) {
  return faults_of(source_of(path, text));
}

}  // namespace

TEST_CASE("no source includes what stands on its level or above", "[unit][layering]") {
  const auto files = sources();
  REQUIRE(files.size() > 40);
  for (const auto& file : files) {
    for (const auto& fault : faults_in(file.string(), moue::test::file_text(file)))
      FAIL_CHECK(fault);
  }
}

TEST_CASE("every room of the sources has a level", "[unit][layering]") {
  for (const auto& entry : fs::directory_iterator("src")) {
    INFO(entry.path().string());
    CHECK(kLevel.contains(entry.path().filename().string()));
  }
  for (const auto& entry : fs::directory_iterator("include/moue")) {
    INFO(entry.path().string());
    CHECK(kLevel.contains(room_of("moue/" + entry.path().filename().string())));
  }
}

TEST_CASE("every source opens with a sentence and is ASCII", "[unit][layering]") {
  for (const auto& file : sources()) {
    INFO(file.string());
    const std::string text = moue::test::file_text(file);
    CHECK(text.starts_with("// "));
    CHECK(std::all_of(text.begin(), text.end(),
                      [](char letter) { return static_cast<unsigned char>(letter) < 128; }));
  }
}

TEST_CASE("forbidden includes are seen", "[unit][layering]") {
  const auto caught = [](const std::string& path, const std::string& include) {
    return faults_in(path, "// x\n#include \"" + include + "\"\n").size() == 1;
  };
  CHECK(caught("src/plan/x.cpp", "moue/train.h"));
  CHECK(caught("src/plan/x.cpp", "convert/x.h"));
  CHECK(caught("src/core/x.cpp", "moue/report.h"));
  CHECK(caught("src/checkpoint/x.cpp", "moue/family.h"));
  CHECK(caught("src/convert/x.cpp", "torch/torch.h"));
  CHECK(caught("src/convert/x.cpp", "ATen/ATen.h"));
  CHECK(caught("src/train/x.cpp", "moue/recipe.h"));
  CHECK(caught("src/cli/x.cpp", "CLI/App.hpp"));
  CHECK(caught("src/convert/x.cpp", "toml++/toml.h"));
  CHECK(caught("src/convert/x.cpp", "catch2/catch.hpp"));
  CHECK(caught("include/moue/plan.h", "nlohmann/json.hpp"));
  CHECK(caught("include/moue/train.h", "torch/types.h"));
  CHECK(caught("converters/x.cpp", "moue/checkpoint.h"));
  CHECK(caught("src/kernels/x.cu", "fmt/format.h"));
  CHECK(caught("src/kernels/x.cu", "torch/torch.h"));
  CHECK(caught("src/kernels/x.cu", "core/json.h"));
  CHECK(caught("tests/unit/x_test.cpp", "torch/torch.h"));
  CHECK(caught("tests/unit/x_test.cpp", "moue/model.h"));
  CHECK(faults_in("tests/unit/x_test.cpp",
                  "#include <catch2/catch.hpp>\n#include \"support/torch_test.h\"\n")
            .size() == 1);
}

TEST_CASE("permitted includes are not", "[unit][layering]") {
  const auto passes = [](const std::string& path, const std::string& include) {
    return faults_in(path, "// x\n#include <" + include + ">\n").empty();
  };
  CHECK(passes("src/plan/x.cpp", "plan/topology.h"));
  CHECK(passes("src/plan/x.cpp", "moue/checkpoint.h"));
  CHECK(passes("src/torch/x.cpp", "validate/x.h"));
  CHECK(passes("src/train/x.cpp", "torch/torch.h"));
  CHECK(passes("src/cli/x.cpp", "moue/recipe.h"));
  CHECK(passes("src/kernels/x.cu", "kernels/glu.h"));
  CHECK(passes("converters/x.cpp", "moue/family.h"));
  CHECK(passes("converters/x.cpp", "moue/converter.h"));
  CHECK(faults_in("tests/unit/x_test.cpp",
                  "#include \"support/torch_test.h\"\n#include \"moue/model.h\"\n")
            .empty());
}
