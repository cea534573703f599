// A closed pico MoUE, tokens to learn from, and ways to look at and tamper with what a run leaves.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "moue/train.h"
#include "support/scratch.h"

namespace moue::test {

namespace fs = std::filesystem;

/// golden/moue/TOPOLOGY/model as convert would have left it: closed, neither calibrated nor
/// trained.
void write_closed_model(const std::string& topology, const fs::path& to);

/// A raw file of tokens below 61 in which each token mostly follows from the one before.
void write_tokens(const fs::path& file, int64_t count, uint64_t seed);

/// Model, tokens and options of a run of 20 steps that passes through every stage in a second.
struct PicoRun {
  Scratch scratch;
  fs::path model = scratch / "model";
  TrainOptions options;

  PicoRun();
  fs::path out(const std::string& name) const { return scratch / name; }
};

/// Rewrites tensors of a safetensors file in place: `change` gets name and values of every F32
/// tensor.
using ChangeTensor = std::function<void(const std::string& name, std::vector<float>& values)>;
void change_tensors(const fs::path& file, const ChangeTensor& change);

/// Replaces text in a file; it must be there.
void replace_text(const fs::path& file, const std::string& from, const std::string& to);

/// Makes the manifest of a changed directory true again.
void renew_manifest(const fs::path& directory);

/// Names (with folders) of the files of two trees that are not byte-equal, or are in one only;
/// sorted.
std::vector<std::string> differing_files(const fs::path& a, const fs::path& b);

/// The lines of train.jsonl without what depends on the clock.
std::vector<std::string> journal_lines(const fs::path& out);

/// The message of the Error that `action` throws; "" where it throws none.
std::string error_of(const std::function<void()>& action);

}  // namespace moue::test
