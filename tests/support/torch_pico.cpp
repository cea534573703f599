// A closed pico MoUE, tokens to learn from, and ways to look at and tamper with what a run leaves.
#include "support/torch_pico.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "checkpoint/manifest.h"
#include "core/philox.h"
#include "core/sha256.h"
#include "moue/config.h"
#include "moue/error.h"
#include "moue/pool.h"
#include "moue/safetensors.h"

namespace moue::test {

void write_closed_model(const std::string& topology, const fs::path& to) {
  fs::copy(fs::path("tests/golden/moue") / topology / "model", to);
  const Config config = Config::read(to / "config.json");
  Pool pool = read_pool(config);
  pool.state = PoolState::Closed;
  pool.calibrated = false;
  fs::permissions(to / "config.json", fs::perms::owner_write, fs::perm_options::add);
  write_text(to / "config.json", with_pool(without_pool(config), pool).text());
  change_tensors(to / "model-moue.safetensors", [](const std::string& name, auto& values) {
    const bool closed = name.ends_with("visibility") || name.ends_with("gain");
    if (closed || name == names::kPoolBias) std::fill(values.begin(), values.end(), 0.0f);
  });
}

void write_tokens(const fs::path& file, int64_t count, uint64_t seed) {
  std::string bytes;
  uint32_t token = 1;
  for (int64_t i = 0; i < count; ++i) {
    const PhiloxBlock draw = philox(seed, {static_cast<uint32_t>(i), 0, 0, 0});
    token = draw[0] % 8 == 0 ? draw[1] % 61 : (token * 7 + 3) % 61;
    bytes.push_back(static_cast<char>(token & 0xff));
    bytes.push_back(static_cast<char>(token >> 8));
  }
  write_text(file, bytes);
}

PicoRun::PicoRun() {
  write_closed_model("half_staggered", model);
  write_tokens(scratch / "train.u16", 4000, 1);
  write_tokens(scratch / "held_out.u16", 400, 2);
  options.tokens = scratch / "train.u16";
  options.held_out = scratch / "held_out.u16";
  options.steps = 20;
  options.batch = 4;
  options.length = 12;
  options.lr = 5e-3;
  options.warmup = 2;
  options.pool_bias = 0.02;
  options.calibrate.tokens = 400;
  options.open = {"distance", 0.2, 0.7};
  options.eval_every = 5;
  options.threads = 1;
}

void change_tensors(const fs::path& file, const ChangeTensor& change) {
  std::vector<TensorView> views;
  std::vector<std::vector<std::byte>> bytes;
  const SafetensorsFile old(file);
  for (const TensorInfo& tensor : old.tensors()) {
    bytes.push_back(old.read(tensor));
    if (tensor.dtype == Dtype::F32) {
      std::vector<float> values(tensor.bytes / sizeof(float));
      std::memcpy(values.data(), bytes.back().data(), tensor.bytes);
      change(tensor.name, values);
      std::memcpy(bytes.back().data(), values.data(), tensor.bytes);
    }
    views.push_back({tensor.name, tensor.dtype, tensor.shape, bytes.back()});
  }
  const fs::path fresh = file.native() + ".new";
  write_safetensors(fresh, views);
  fs::rename(fresh, file);
}

void replace_text(const fs::path& file, const std::string& from, const std::string& to) {
  std::string text = file_text(file);
  const size_t at = text.find(from);
  if (at == std::string::npos) throw std::runtime_error(file.string() + " lacks " + from);
  write_text(file, text.replace(at, from.size(), to));
}

void renew_manifest(const fs::path& directory) {
  Manifest manifest = read_manifest(directory);
  for (ManifestFile& file : manifest.files) {
    file.size = fs::file_size(directory / file.name);
    file.sha256 = sha256_of_file(directory / file.name);
  }
  write_manifest(directory, manifest);
}

std::vector<std::string> differing_files(const fs::path& a, const fs::path& b) {
  std::set<std::string> names;
  for (const fs::path& root : {a, b}) {
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      if (entry.is_regular_file()) names.insert(fs::relative(entry.path(), root).string());
    }
  }
  std::vector<std::string> differing;
  for (const std::string& name : names) {
    const bool both = fs::exists(a / name) && fs::exists(b / name);
    if (!both || file_text(a / name) != file_text(b / name)) differing.push_back(name);
  }
  return differing;
}

std::vector<std::string> journal_lines(const fs::path& out) {
  static const std::regex clock("\"tokens_per_second\":[^,]*,");
  std::vector<std::string> lines;
  std::ifstream in(out / "train.jsonl");
  for (std::string line; std::getline(in, line);) {
    lines.push_back(std::regex_replace(line, clock, ""));
  }
  return lines;
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace moue::test
