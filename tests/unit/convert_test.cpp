// convert: what the linked layout holds, that the source stays untouched, what is refused.
#include <catch2/catch.hpp>

#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <numbers>

#include "checkpoint/manifest.h"
#include "convert/link.h"
#include "convert/values.h"
#include "core/normal.h"
#include "core/text.h"
#include "moue/convert.h"
#include "moue/error.h"
#include "support/files.h"
#include "support/loose_model.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

const char* const kPico = "tests/golden/families/mixtral";
const char* const kTiny = "examples/tiny-mixtral";

Plan plan_of(const Checkpoint& source, const std::string& topology = "half_staggered") {
  PlanOptions options;
  options.topology = topology;
  return make_plan(source, family_of(source.config()), nullptr, options);
}

// Converts a directory with everything at its default.
Report convert_to(const fs::path& from, const fs::path& to, const ConvertOptions& options = {}) {
  const Checkpoint source = open_checkpoint(from);
  return convert(source, plan_of(source), nullptr, to, options);
}

ConvertOptions seeded(int64_t seed) {
  ConvertOptions options;
  options.seed = seed;
  options.recipe = "source = \"x\"\n";
  return options;
}

ino_t inode(const fs::path& file) {
  struct stat status {};
  REQUIRE(::stat(file.c_str(), &status) == 0);
  return status.st_ino;
}

std::string fact(const Report& report, const std::string& key) {
  for (const Fact& fact : report.facts) {
    if (fact.key == key) return value_text(fact.value);
  }
  return "no fact " + key;
}

// Statistics that fit a plan, with numbers that tell slots apart.
Statistics statistics_of(const Plan& plan) {
  Statistics statistics;
  statistics.fingerprint = plan.fingerprint;
  statistics.slots = plan.pool.slots;
  for (int64_t layer = 0; layer < plan.pool.num_moe_layers(); ++layer) {
    statistics.beta.emplace_back();
    statistics.scale.emplace_back();
    for (int64_t i = 0; i < plan.pool.num_foreign(layer); ++i) {
      statistics.beta.back().push_back(-0.5 * static_cast<double>(layer + 1));
      statistics.scale.back().push_back(1 + 0.125 * static_cast<double>(i));
    }
  }
  return statistics;
}

// One file with all tensors, as small models have it.
void write_single(const fs::path& from, const fs::path& to) {
  const Checkpoint source = open_checkpoint(from);
  fs::create_directory(to);
  std::vector<std::vector<std::byte>> bytes;
  std::vector<TensorView> views;
  for (const TensorInfo& tensor : source.tensors()) {
    bytes.push_back(source.read(tensor));
    views.push_back({tensor.name, tensor.dtype, tensor.shape, bytes.back()});
  }
  write_safetensors(to / "model.safetensors", views);
  fs::copy_file(from / "config.json", to / "config.json");
}

}  // namespace

TEST_CASE("a conversion holds the source's tensors and the pool's, and reads back") {
  const Scratch scratch;
  const auto before = snapshot(kTiny);
  const Report report = convert_to(kTiny, scratch / "out");
  CHECK(snapshot(kTiny) == before);
  CHECK(fact(report, "state") == "closed");
  CHECK(report.tables.at(0).rows.size() ==
        open_checkpoint(kTiny).files().size() + 1 + open_checkpoint(kTiny).other_files().size());

  const Checkpoint source = open_checkpoint(kTiny), result = open_checkpoint(scratch / "out");
  const Pool pool = read_pool(result.config());
  CHECK(pool.slots == plan_of(source).pool.slots);
  CHECK(pool.state == PoolState::Closed);
  CHECK_FALSE(pool.calibrated);
  CHECK(without_pool(result.config()).text() == source.config().text());
  const auto added = pool_tensors(pool, family_of(source.config()).spec(source.config()));
  CHECK(result.tensors().size() == source.tensors().size() + added.size());
  for (const TensorInfo& tensor : source.tensors()) {
    CHECK(result.read(result.at(tensor.name)) == source.read(tensor));
  }
  for (const PoolTensor& tensor : added) {
    CHECK(result.at(tensor.name).shape == tensor.shape);
    CHECK(result.at(tensor.name).dtype == Dtype::F32);
  }
  CHECK_NOTHROW(claim(result, family_of(result.config())));
  CHECK(join(result.other_files()) ==
        "README.md, README.parent.md, generation_config.json, plan.svg, tokenizer.json, "
        "tokenizer_config.json");
}

TEST_CASE("new tensors start as the method says") {
  const Scratch scratch;
  convert_to(kTiny, scratch / "out", seeded(3));
  const Checkpoint source = open_checkpoint(kTiny);
  LooseModel model(scratch / "out");
  const Pool& pool = model.pool;
  const int64_t width = 128;
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    const auto rows = model.floats(names::router_weight(layer));
    const auto& slots = pool.slots[layer];
    for (int64_t i = 0; i < pool.num_foreign(layer); ++i) {
      const Home home = pool.home[slots[pool.experts_per_layer + i]];
      CHECK(home.layer != layer);
      const std::string name =
          fmt::format("model.layers.{}.block_sparse_moe.gate.weight", home.layer);
      const auto router = source.files()[source.at(name).file].values(name);
      for (int64_t d = 0; d < width; ++d) {
        REQUIRE(rows[i * width + d] == static_cast<float>(router[home.expert * width + d]));
      }
    }
    for (const float beta : model.floats(names::router_bias(layer))) CHECK(beta == 0);
    for (const float scale : model.floats(names::router_scale(layer))) CHECK(scale == 1);
    for (const float open : model.floats(names::router_visibility(layer))) CHECK(open == 0);
    for (const float gain : model.floats(names::trajectory_gain(layer))) CHECK(gain == 0);
  }
  for (const float bias : model.floats(names::kPoolBias)) CHECK(bias == 0);
  for (const char* name : {names::kKey, names::kQuery}) {
    double sum = 0, squares = 0;
    for (const float value : model.floats(name)) sum += value, squares += value * value;
    const auto count = static_cast<double>(pool.num_physical() * pool.state_dim);
    CHECK(std::fabs(sum / count) < 4 / std::sqrt(count * static_cast<double>(pool.state_dim)));
    CHECK(squares / count == Approx(1.0 / static_cast<double>(pool.state_dim)).epsilon(0.1));
  }
  CHECK(model.at(names::kKey).bytes != model.at(names::kQuery).bytes);
  const auto decay = model.floats(names::kDecay);
  const auto lambda = [](float logit) { return 1 / (1 + std::exp(-static_cast<double>(logit))); };
  CHECK(lambda(decay.front()) == Approx(0.5));
  CHECK(lambda(decay.back()) == Approx(0.97));
  CHECK(lambda(decay[1]) / lambda(decay[0]) == Approx(lambda(decay[3]) / lambda(decay[2])));
  CHECK(decay_start(1).at(0) == 0);
}

TEST_CASE("the same input gives the same bytes, another seed other keys") {
  const Scratch scratch;
  fs::create_directories(scratch / "a/b");
  convert_to(kPico, scratch / "one", seeded(1));
  convert_to(kPico, scratch / "a/b/two", seeded(1));
  convert_to(kPico, scratch / "other", seeded(2));
  CHECK(listing(scratch / "one") == listing(scratch / "a/b/two"));
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(scratch / "one")) {
    const std::string name = entry.path().filename();
    CHECK(file_text(entry.path()) == file_text(scratch / "a/b/two" / name));
    files += 1;
  }
  CHECK(files >= 9);
  CHECK(file_text(scratch / "one/model-moue.safetensors") !=
        file_text(scratch / "other/model-moue.safetensors"));
  const std::string manifest = file_text(scratch / "one" / kManifestFile);
  CHECK_THAT(manifest, Contains("source = \\\"x\\\"") && !Contains(scratch.path().string()));
  CHECK(manifest_faults(read_manifest(scratch / "one"), scratch / "one", true).empty());
}

TEST_CASE("statistics give beta and a") {
  const Scratch scratch;
  const Checkpoint source = open_checkpoint(kPico);
  const Plan plan = plan_of(source);
  const Statistics statistics = statistics_of(plan);
  convert(source, plan, &statistics, scratch / "out", {});
  LooseModel model(scratch / "out");
  CHECK(model.pool.calibrated);
  CHECK(model.floats(names::router_bias(1))[0] == -1.0F);
  CHECK(model.floats(names::router_scale(1))[2] == 1.25F);
}

TEST_CASE("statistics and plans of something else are refused") {
  const Scratch scratch;
  const Checkpoint source = open_checkpoint(kPico);
  const Plan plan = plan_of(source);
  const auto refused = [&](const Plan& plan, const Statistics& statistics, const char* words) {
    CHECK_THROWS_WITH(convert(source, plan, &statistics, scratch / "out", {}),
                      Contains("[convert]") && Contains(words));
    CHECK(listing(scratch.path()).empty());
  };
  Statistics statistics = statistics_of(plan);
  statistics.fingerprint = std::string(64, '0');
  refused(plan, statistics, "the statistics were measured on source 000000000000, the plan is of");
  statistics = statistics_of(plan);
  std::swap(statistics.slots[0].front(), statistics.slots[0].back());
  refused(plan, statistics, "were measured for another plan");
  statistics = statistics_of(plan_of(source, "vanilla"));
  refused(plan, statistics, "were measured for another plan");
  statistics.slots.clear();
  refused(plan, statistics, "were measured without a plan");
  statistics = statistics_of(plan);
  statistics.beta[1].pop_back();
  refused(plan, statistics, "the statistics' beta of MoE layer 1 has");
  statistics = statistics_of(plan);
  statistics.scale[1][0] = std::nan("");
  refused(plan, statistics, "the statistics' scale of MoE layer 1 has");

  Plan other = plan_of(open_checkpoint(kTiny));
  refused(other, statistics_of(other), "the plan was made for source ");
  other = plan;
  other.pool.state = PoolState::Opened;
  refused(other, statistics_of(other), "the plan's state is 'opened', wanted 'closed'");
  other = plan;
  other.pool.moe_layers.back() += 1;
  refused(other, statistics_of(other), "MoE layers of");
  other = plan;
  other.pool.slots[0].back() = 0;
  CHECK_THROWS_WITH(convert(source, other, nullptr, scratch / "out", {}), Contains("[pool]"));
}

TEST_CASE("what is in the way is refused") {
  const Scratch scratch;
  const Checkpoint source = open_checkpoint(kPico);
  const Plan plan = plan_of(source);
  fs::create_directory(scratch / "out");
  CHECK_THROWS_WITH(convert(source, plan, nullptr, scratch / "out", {}), Contains("exists"));
  CHECK(fs::is_empty(scratch / "out"));
  ConvertOptions unknown;
  unknown.layout = "spread";
  CHECK_THROWS_WITH(convert(source, plan, nullptr, scratch / "new", unknown),
                    Contains("[convert] no layout 'spread'; known: linked, packed, export"));
  convert(source, plan, nullptr, scratch / "first", {});
  const Checkpoint converted = open_checkpoint(scratch / "first");
  CHECK_THROWS_WITH(convert(converted, plan, nullptr, scratch / "second", {}),
                    Contains("first is a MoUE already; convert the model it was made from"));

  LooseModel named(kPico);
  for (LooseTensor& tensor : named.tensors) tensor.file = "model-moue.safetensors";
  named.write(scratch / "named");
  CHECK_THROWS_WITH(convert_to(scratch / "named", scratch / "second"),
                    Contains("has model-moue.safetensors, whose name the result needs"));
  LooseModel damaged(kPico);
  damaged.at(Role::Router, 1).bytes[3] = std::byte{0x7f};
  damaged.at(Role::Router, 1).bytes[2] = std::byte{0xff};
  damaged.at(Role::Router, 1).bytes[1] = std::byte{0x7f};
  damaged.write(scratch / "damaged");
  CHECK_THROWS_WITH(convert_to(scratch / "damaged", scratch / "second"),
                    Contains("holds nan at index 0, wanted finite numbers"));
  CHECK_FALSE(fs::exists(scratch / "second"));
}

TEST_CASE("shards are linked, small files are copies") {
  const Scratch scratch;
  copy_tree(kPico, scratch / "source");
  const auto before = snapshot(scratch / "source");
  const Report report = convert_to(scratch / "source", scratch / "out");
  CHECK(snapshot(scratch / "source") == before);
  const bool reflinks = fact(report, "shards") == "5 reflink";
  if (!reflinks) {
    CHECK(fact(report, "shards") == "5 hard link");
    CHECK(inode(scratch / "out/model-00001-of-00005.safetensors") ==
          inode(scratch / "source/model-00001-of-00005.safetensors"));
  }
  CHECK(inode(scratch / "out/generation_config.json") !=
        inode(scratch / "source/generation_config.json"));
  CHECK_THAT(fact(report, "go_back"), Contains("remove"));
}

TEST_CASE(
    "a single file stands under a shard's name, so that no reader takes it without the index") {
  const Scratch scratch;
  write_single(kPico, scratch / "source");
  convert_to(scratch / "source", scratch / "out");
  CHECK_FALSE(fs::exists(scratch / "out/model.safetensors"));
  CHECK(fs::exists(scratch / "out/model-00001-of-00001.safetensors"));
  const Checkpoint result = open_checkpoint(scratch / "out");
  const Checkpoint source = open_checkpoint(scratch / "source");
  for (const TensorInfo& tensor : source.tensors()) {
    CHECK(result.read(result.at(tensor.name)) == source.read(tensor));
  }
}

TEST_CASE("a Hugging Face cache's links are followed to the blobs behind") {
  const Scratch scratch;
  fs::create_directories(scratch / "blobs");
  fs::create_directories(scratch / "snapshots/main");
  for (const auto& entry : fs::directory_iterator(kPico)) {
    const fs::path name = entry.path().filename();
    fs::copy_file(entry.path(), scratch / "blobs" / (name.string() + ".blob"));
    fs::create_symlink(fs::path("../../blobs") / (name.string() + ".blob"),
                       scratch / "snapshots/main" / name.string());
  }
  const auto before = snapshot(scratch / "blobs");
  convert_to(scratch / "snapshots/main", scratch / "out");
  CHECK(snapshot(scratch / "blobs") == before);
  for (const auto& entry : fs::directory_iterator(scratch / "out")) {
    CHECK(fs::is_regular_file(fs::symlink_status(entry.path())));
  }
  CHECK_NOTHROW(open_checkpoint(scratch / "out"));
}

TEST_CASE("link_file falls back and never touches the source") {
  const Scratch scratch;
  write_text(scratch / "source", "twelve bytes");
  const auto before = snapshot(scratch.path());
  fs::create_directory(scratch / "to");
  const LinkKind how = link_file(scratch / "source", scratch / "to/linked");
  CHECK((how == LinkKind::Reflink || how == LinkKind::HardLink));
  CHECK(file_text(scratch / "to/linked") == "twelve bytes");
  const LinkKind copied = clone_file(scratch / "source", scratch / "to/copied");
  CHECK((copied == LinkKind::Reflink || copied == LinkKind::Copy));
  CHECK(file_text(scratch / "to/copied") == "twelve bytes");
  CHECK(inode(scratch / "to/copied") != inode(scratch / "source"));
  CHECK_THROWS_WITH(clone_file(scratch / "source", scratch / "to/copied"),
                    Contains("copied cannot be created: File exists"));
  CHECK_THROWS_WITH(link_file(scratch / "absent", scratch / "to/x"), Contains("leads nowhere"));
  CHECK_THROWS_WITH(link_file(scratch / "to", scratch / "to/x"),
                    Contains("to is a directory, wanted a regular file"));
  CHECK_FALSE(fs::exists(scratch / "to/x"));
  fs::remove_all(scratch / "to");
  CHECK(snapshot(scratch.path()) == before);
  CHECK(to_string(LinkKind::Symlink) == "symbolic link");
}

TEST_CASE("on another file system shards become symbolic links; a full one leaves nothing behind") {
  const Scratch scratch;
  fs::create_directory(scratch / "disk");
  const std::string disk = (scratch / "disk").string();
  if (::geteuid() != 0 || ::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=256k") != 0) {
    WARN("not tried: a tmpfs cannot be mounted here");
    return;
  }
  struct Unmount {
    std::string at;
    ~Unmount() { ::umount2(at.c_str(), MNT_DETACH); }
  } const unmount{disk};
  copy_tree(kPico, scratch / "source");
  const auto before = snapshot(scratch / "source");
  const Report report = convert_to(scratch / "source", scratch / "disk/out");
  CHECK(fact(report, "shards") == "5 symbolic link");
  CHECK(fs::read_symlink(scratch / "disk/out/model-00001-of-00005.safetensors") ==
        fs::canonical(scratch / "source/model-00001-of-00005.safetensors"));
  CHECK_NOTHROW(open_checkpoint(scratch / "disk/out"));
  CHECK_THAT(report.warnings.back(), Contains("moving or removing the source breaks them"));

  write_text(scratch / "disk/ballast", std::string(200 << 10, 'x'));
  CHECK_THROWS_WITH(convert_to(kTiny, scratch / "disk/full"), Contains("free"));
  write_text(scratch / "source/tokenizer.json", std::string(300 << 10, 'x'));
  CHECK_THROWS_WITH(convert_to(scratch / "source", scratch / "disk/full"), Contains("free"));
  CHECK_THAT(listing(scratch / "disk"), !Contains("full"));
  fs::remove(scratch / "source/tokenizer.json");
  CHECK(snapshot(scratch / "source") == before);
}

TEST_CASE("normal quantiles agree with known values and are odd") {
  CHECK(normal_quantile(0.5) == 0);
  CHECK(normal_quantile(0.975) == Approx(1.959963984540054).epsilon(1e-14));
  CHECK(normal_quantile(1e-10) == Approx(-6.361340902404056).epsilon(1e-14));
  CHECK(normal_quantile(1e-300) == Approx(-37.0471).epsilon(1e-5));
  for (const double p : {0.001, 0.0749, 0.0751, 0.3}) {
    CHECK(normal_quantile(p) == Approx(-normal_quantile(1 - p)).epsilon(1e-12));
    const double x = normal_quantile(p);
    CHECK(std::erfc(-x / std::numbers::sqrt2) / 2 == Approx(p).epsilon(1e-13));
  }
  CHECK(normal_quantile(0.3) != normal_quantile(0.3000001));
}

TEST_CASE("drawn numbers are those recorded, on every machine") {
  std::vector<float> values(4);
  fill_normal(values, 7, "moue.trajectory.key", 0.5);
  // Computed apart: Philox in Python, quantile by statistics.NormalDist.
  CHECK(values ==
        std::vector<float>{-0x1.8b233ap-1F, 0x1.5bcf68p-2F, -0x1.46b4f4p-2F, -0x1.42c28ap-1F});
  std::vector<float> other(4);
  fill_normal(other, 7, "moue.trajectory.query", 0.5);
  CHECK(values != other);
  std::vector<float> many(100000);
  fill_normal(many, 1, "x", 1);
  double fourth = 0;
  for (const float value : many) fourth += std::pow(static_cast<double>(value), 4);
  CHECK(fourth / 100000 == Approx(3).epsilon(0.03));
}
