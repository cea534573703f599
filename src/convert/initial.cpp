// Draws the weights of a model that was never trained and writes them as a model directory.
#include "moue/initial.h"

#include <algorithm>
#include <cmath>

#include "checkpoint/directory.h"
#include "checkpoint/floats.h"
#include "checkpoint/header.h"
#include "checkpoint/index.h"
#include "checkpoint/manifest.h"
#include "convert/card.h"
#include "convert/link.h"
#include "core/files.h"
#include "core/normal.h"
#include "core/sha256.h"
#include "core/staging.h"
#include "core/stop.h"
#include "core/text.h"
#include "core/tree.h"
#include "family/initial.h"
#include "family/unpacked.h"
#include "moue/error.h"
#include "moue/log.h"
#include "moue/pool.h"
#include "moue/safetensors.h"
#include "moue/version.h"
#include "plan/parallel.h"

namespace fs = std::filesystem;

namespace moue {

namespace {

constexpr const char* kConfig = "config.json";

Dtype dtype_of_weights(const Config& config) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    const std::string name = config.string(key, "");
    if (name.empty()) continue;
    if (name == "float32") return Dtype::F32;
    if (name == "bfloat16") return Dtype::BF16;
    if (name == "float16") return Dtype::F16;
    fail("initial", "{}: {} is {}, wanted float32, bfloat16 or float16", config.origin(), key,
         in_quotes(name));
  }
  return Dtype::F32;
}

// As transformers reads it, where 0 and nothing mean the default.
double deviation_of(const Config& config) {
  constexpr double kDefault = 0.02;
  const double range = config.real("initializer_range", kDefault);
  if (!std::isfinite(range) || range < 0)
    fail("initial", "{}: initializer_range is {}, wanted a number above 0", config.origin(), range);
  return range == 0 ? kDefault : range;
}

/// All that is decided before the first byte is drawn.
struct Fresh {
  Config config;
  fs::path folder;  ///< whose other files are carried along; "" = none
  std::vector<InitialTensor> tensors;
  Dtype dtype = Dtype::F32;
  double deviation = 0;
  uint64_t seed = 0;

  Dtype dtype_of(const InitialTensor& tensor) const { return tensor.float32 ? Dtype::F32 : dtype; }
  uint64_t bytes_of(const InitialTensor& tensor) const {
    const std::optional<uint64_t> bytes = tensor_bytes(dtype_of(tensor), tensor.shape);
    if (bytes) return *bytes;
    fail("initial", "{}: {} would be {}, wanted fewer than 2^63 bytes", config.origin(),
         tensor.name, shape_text(tensor.shape));
  }
  /// What tells two of them apart beside the config; stands in the manifest.
  std::string recipe() const { return fmt::format("[train]\nseed = {}\n", seed); }
};

Fresh read_fresh(const fs::path& config, uint64_t seed) {
  const bool folder = is_folder(config);
  const Config read = without_packing(Config::read(folder ? config / kConfig : config));
  if (is_moue(read))
    fail("initial",
         "{} is of a MoUE, wanted an ordinary model's; its pool is planned anew by [plan]",
         read.origin());
  const Family& family = family_of(read);
  Fresh fresh{read,
              folder ? config : fs::path(),
              initial_tensors(family, family.spec(read)),
              dtype_of_weights(read),
              deviation_of(read),
              seed};
  return fresh;
}

// The tensor's elements [first, first + count), each a function of its place alone.
void draw(const Fresh& fresh, const InitialTensor& tensor, uint64_t first, std::span<float> out) {
  if (tensor.start != Start::Normal) {
    std::ranges::fill(out, tensor.start == Start::One ? 1.0F : 0.0F);
    return;
  }
  fill_normal(out, fresh.seed, tensor.name, fresh.deviation, first);
}

// Bytes of the tensor from `from` on, whole elements, on all cores.
void fill(const Fresh& fresh, const InitialTensor& tensor, uint64_t from,
          std::span<std::byte> out) {
  constexpr uint64_t kPiece = uint64_t{1} << 14;  // elements
  stop_if_asked("initial");
  const Dtype dtype = fresh.dtype_of(tensor);
  const uint64_t width = static_cast<uint64_t>(dtype_bits(dtype)) / 8, count = out.size() / width;
  const auto pieces = static_cast<int64_t>((count + kPiece - 1) / kPiece);
  const auto piece = [&](int64_t number) {
    const uint64_t begin = static_cast<uint64_t>(number) * kPiece;
    std::vector<float> values(std::min(kPiece, count - begin));
    draw(fresh, tensor, from / width + begin, values);
    from_floats(dtype, values, out.subspan(begin * width, values.size() * width));
  };
  if (pieces == 1) return piece(0);
  in_parallel(pieces, piece, [](int64_t) {});
}

std::vector<std::span<const InitialTensor>> shards_of(const Fresh& fresh, uint64_t most) {
  std::vector<std::span<const InitialTensor>> shards;
  const std::span<const InitialTensor> all(fresh.tensors);
  size_t begin = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    const uint64_t added = fresh.bytes_of(all[i]);
    if (i > begin && bytes + added > most) {
      shards.push_back(all.subspan(begin, i - begin));
      begin = i;
      bytes = 0;
    }
    bytes += added;
  }
  shards.push_back(all.subspan(begin));
  return shards;
}

class Writing {
 public:
  Writing(const Fresh& fresh, Staging& staging) : fresh_(fresh), staging_(staging) {
    for (const InitialTensor& tensor : fresh_.tensors) total_ += fresh_.bytes_of(tensor);
  }

  void write(uint64_t shard_size) {
    require_space(staging_.path(), total_);
    const auto shards = shards_of(fresh_, shard_size);
    Index index;
    for (size_t i = 0; i < shards.size(); ++i) {
      const std::string name = shards.size() == 1 ? std::string(kSingleFile)
                                                  : fmt::format("model-{:05}-of-{:05}.safetensors",
                                                                i + 1, shards.size());
      write_shard(name, shards[i]);
      index.files.push_back(name);
      for (const InitialTensor& tensor : shards[i]) {
        index.weight_map.emplace_back(tensor.name, static_cast<uint32_t>(i));
        manifest_.tensors[tensor.name] = "drawn " + name;
      }
    }
    if (shards.size() > 1)
      add_text(std::string(kIndexFile), index_text(index, parameters_, total_));
    carry_others();
    add_text(kConfig, fresh_.config.text());
    manifest_.tool = fmt::format("moue {}", kVersion);
    manifest_.recipe = fresh_.recipe();
    write_manifest(staging_.path(), manifest_);
  }

  uint64_t parameters() const { return parameters_; }
  uint64_t bytes() const { return total_; }

 private:
  void write_shard(const std::string& name, std::span<const InitialTensor> tensors) {
    std::vector<TensorStream> streams;
    for (const InitialTensor& tensor : tensors) {
      parameters_ +=
          fresh_.bytes_of(tensor) * 8 / static_cast<uint64_t>(dtype_bits(fresh_.dtype_of(tensor)));
      streams.push_back({tensor.name, fresh_.dtype_of(tensor), tensor.shape,
                         [&](uint64_t from, std::span<std::byte> out) {
                           fill(fresh_, tensor, from, out);
                           done_ += out.size();
                           log_progress({"initial", static_cast<double>(done_),
                                         static_cast<double>(total_), "B", ""});
                         }});
    }
    std::optional<FileDigest> digest = staging_.has(name);
    if (!digest) {
      digest = stream_safetensors(staging_.path() / name, streams);
      staging_.done(name, *digest);
    }
    manifest_.files.push_back({name, digest->bytes, digest->sha256});
  }

  void carry_others() {
    if (fresh_.folder.empty()) return;
    for (const std::string& name : list_other_files(fresh_.folder, {})) {
      if (name == kCard) continue;  // it tells of trained weights
      clone_file(fresh_.folder / name, staging_.path() / name);
      add(name);
    }
  }

  void add_text(const std::string& name, const std::string& text) {
    write_file_whole(staging_.path() / name, text);
    add(name);
  }

  void add(const std::string& name) {
    const fs::path file = staging_.path() / name;
    manifest_.files.push_back({name, InputFile(file, "initial").size(), sha256_of_file(file)});
  }

  const Fresh& fresh_;
  Staging& staging_;
  Manifest manifest_;
  uint64_t parameters_ = 0, total_ = 0, done_ = 0;
};

std::string job_of(const Fresh& fresh, uint64_t shard_size) {
  const std::string key = fmt::format("moue {} initial {} {} {}", kVersion, fresh.seed, shard_size,
                                      fresh.config.text());
  return sha256_of(std::as_bytes(std::span(key)));
}

// What stands there is kept where it is what would be written.
void require_same(const Fresh& fresh, const fs::path& out) {
  const Manifest manifest = read_manifest(out);
  std::vector<std::string> faults = manifest_faults(manifest, out, false);
  if (manifest.recipe != fresh.recipe())
    faults.push_back(fmt::format("was drawn with {}, wanted {}", in_quotes(manifest.recipe),
                                 in_quotes(fresh.recipe())));
  if (faults.empty() && read_whole_file(out / kConfig, "initial") != fresh.config.text())
    faults.emplace_back("is of another config");
  if (faults.empty()) return;
  fail("initial", "{} stands and {}; remove it, or name another --out", out.string(),
       join(faults, "; "));
}

}  // namespace

Checkpoint initial_headers(const fs::path& config) {
  const Fresh fresh = read_fresh(config, 0);
  auto contents = std::make_shared<Checkpoint::Contents>(
      Checkpoint::Contents{config, fresh.config, {}, {}, {}, {}, {}});
  for (const InitialTensor& tensor : fresh.tensors) {
    contents->tensors.push_back({.name = tensor.name,
                                 .dtype = fresh.dtype_of(tensor),
                                 .shape = tensor.shape,
                                 .bytes = fresh.bytes_of(tensor)});
  }
  for (size_t i = 0; i < contents->tensors.size(); ++i)
    contents->by_name.emplace(contents->tensors[i].name, static_cast<uint32_t>(i));
  return Checkpoint(std::move(contents));
}

Report write_initial(const fs::path& config, const fs::path& out, const InitialOptions& options) {
  const Fresh fresh = read_fresh(config, static_cast<uint64_t>(options.seed));
  Report report;
  report.verb = "initial";
  report.title = "Initial weights " + out.string();
  report.facts = {{"seed", options.seed, ""},
                  {"initializer_range", fresh.deviation, ""},
                  {"dtype", std::string(dtype_name(fresh.dtype)), ""},
                  {"tensors", static_cast<int64_t>(fresh.tensors.size()), ""}};
  if (stands(out)) {
    require_same(fresh, out);
    log_line("initial", "{} stands, drawn with seed {}: it is taken as it is", out.string(),
             options.seed);
    return report;
  }
  const StopSignals stop;
  Staging staging(out, job_of(fresh, options.shard_size));
  Writing writing(fresh, staging);
  staging.finish([&] { writing.write(options.shard_size); });
  report.facts.push_back({"parameters", static_cast<int64_t>(writing.parameters()), ""});
  report.facts.push_back({"bytes", static_cast<int64_t>(writing.bytes()), "B"});
  log_line("initial", "{}: {} parameters drawn with seed {}, deviation {}", out.string(),
           count_text(static_cast<double>(writing.parameters())), options.seed, fresh.deviation);
  return report;
}

}  // namespace moue
