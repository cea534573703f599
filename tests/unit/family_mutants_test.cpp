// Damaged conversions of every family: each is refused or found by the gates that need no model.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>

#include "checkpoint/index.h"
#include "checkpoint/manifest.h"
#include "core/sha256.h"
#include "moue/convert.h"
#include "moue/validate.h"
#include "support/files.h"
#include "support/loose_model.h"
#include "support/messages.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

std::vector<fs::path> cases() {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator("tests/golden/families")) {
    if (entry.is_directory()) found.push_back(entry.path());
  }
  std::ranges::sort(found);
  return found;
}

// The bytes of one expert's matrix, element by element, wherever it lies.
class ExpertBytes {
 public:
  ExpertBytes(LooseModel& model, Role role, int64_t expert)
      : slice_(model.slice(role, model.pool.moe_layers[1], expert)),
        tensor_(model.at(slice_.tensor->name)),
        width_(static_cast<size_t>(dtype_bits(tensor_.dtype)) / 8) {}
  std::vector<std::byte> get() const {
    std::vector<std::byte> all(static_cast<size_t>(slice_.rows * slice_.columns) * width_);
    walk([&](std::byte* at, size_t i) { std::memcpy(&all[i * width_], at, width_); });
    return all;
  }
  void set(const std::vector<std::byte>& all) const {
    walk([&](std::byte* at, size_t i) { std::memcpy(at, &all[i * width_], width_); });
  }

 private:
  template <class Visit>
  void walk(Visit visit) const {
    size_t i = 0;
    for (int64_t row = 0; row < slice_.rows; ++row) {
      for (int64_t column = 0; column < slice_.columns; ++column) {
        const int64_t element =
            slice_.offset + row * slice_.row_stride + column * slice_.column_stride;
        visit(&tensor_.bytes[static_cast<size_t>(element) * width_], i++);
      }
    }
  }
  Slice slice_;
  LooseTensor& tensor_;
  size_t width_;
};

constexpr Role kMatrices[] = {Role::ExpertGate, Role::ExpertUp, Role::ExpertDown};

void flip_bit(LooseTensor& tensor, size_t byte) { tensor.bytes.at(byte) ^= std::byte{1}; }

// What is done to a directory of a conversion taken apart, and put together with index and manifest
// to match.
struct Damage {
  const char* name;
  void (*change)(LooseModel&);
};

const Damage kDamages[] = {
    {"one expert deleted",
     [](LooseModel& m) {
       m.erase(m.slice(Role::ExpertDown, m.pool.moe_layers[1], 1).tensor->name);
     }},
    {"one expert zeroed",
     [](LooseModel& m) {
       for (const Role role : kMatrices) {
         const ExpertBytes matrix(m, role, 1);
         matrix.set(std::vector<std::byte>(matrix.get().size()));
       }
     }},
    {"two experts swapped",
     [](LooseModel& m) {
       for (const Role role : kMatrices) {
         const ExpertBytes a(m, role, 0), b(m, role, 2);
         const std::vector<std::byte> kept = a.get();
         a.set(b.get());
         b.set(kept);
       }
     }},
    {"one expert duplicated",
     [](LooseModel& m) {
       for (const Role role : kMatrices) ExpertBytes(m, role, 2).set(ExpertBytes(m, role, 1).get());
     }},
    {"gate and up of one expert swapped",
     [](LooseModel& m) {
       const ExpertBytes a(m, Role::ExpertGate, 1), b(m, Role::ExpertUp, 1);
       const std::vector<std::byte> kept = a.get();
       a.set(b.get());
       b.set(kept);
     }},
    {"a bit of an expert flipped",
     [](LooseModel& m) {
       const ExpertBytes matrix(m, Role::ExpertUp, 2);
       std::vector<std::byte> bytes = matrix.get();
       bytes.back() ^= std::byte{1};
       matrix.set(bytes);
     }},
    {"a bit of a router flipped",
     [](LooseModel& m) { flip_bit(m.at(Role::Router, m.pool.moe_layers[0]), 0); }},
    {"a bit of the embedding flipped", [](LooseModel& m) { flip_bit(m.at(Role::Embedding), 7); }},
    {"a bit of a foreign router row flipped",
     [](LooseModel& m) { flip_bit(m.at(names::router_weight(1)), 0); }},
    {"a foreign slot left open",
     [](LooseModel& m) { m.floats(names::router_visibility(0))[0] = 1; }},
    {"a shard with another model's numbers",
     [](LooseModel& m) {
       const std::string shard = m.at(Role::FinalNorm).file;
       for (LooseTensor& tensor : m.tensors) {
         if (tensor.file == shard) flip_bit(tensor, tensor.bytes.size() - 1);
       }
     }},
    {"another number of experts per token",
     [](LooseModel& m) {
       for (const char* key : {"num_experts_per_tok", "moe_top_k"}) {
         if (m.config.contains(key)) m.config[key] = m.config[key].get<int64_t>() - 1;
       }
       if (m.config.contains("ffn_config")) m.config["ffn_config"]["moe_top_k"] = 1;
     }},
};

// What is done to the files themselves; nothing else is made to match.
struct Raid {
  const char* name;
  void (*change)(const fs::path& directory, const fs::path& stranger);
};

// A link to the source's file would carry the damage there.
void make_own(const fs::path& file) {
  const std::string text = file_text(file);
  fs::remove(file);
  write_text(file, text);
}

fs::path first_shard(const fs::path& directory) {
  return directory / open_checkpoint(directory).file_names().front();
}

template <class Change>
void change_index(const fs::path& directory, Change change) {
  ordered_json index = ordered_json::parse(file_text(directory / kIndexFile));
  change(index["weight_map"]);
  write_text(directory / kIndexFile, index.dump(2));
}

void point_first(const fs::path& directory, const std::string& to) {
  change_index(directory, [&](ordered_json& map) { map.begin().value() = to; });
}

const Raid kRaids[] = {
    {"a shard of another model",
     [](const fs::path& at, const fs::path& stranger) {
       const fs::path shard = first_shard(at);
       fs::remove(shard);
       fs::copy_file(first_shard(stranger), shard);
     }},
    {"a shard cut by a byte",
     [](const fs::path& at, const fs::path&) {
       const fs::path shard = first_shard(at);
       make_own(shard);
       fs::resize_file(shard, fs::file_size(shard) - 1);
     }},
    {"a shard missing", [](const fs::path& at, const fs::path&) { fs::remove(first_shard(at)); }},
    {"an index entry redirected to another shard",
     [](const fs::path& at, const fs::path&) {
       change_index(at, [](ordered_json& map) {
         const std::string first = map.begin().value();
         for (const auto& item : map.items()) {
           if (item.value() != first) return void(map.begin().value() = item.value());
         }
       });
     }},
    {"an index entry that leaves the directory",
     [](const fs::path& at, const fs::path& stranger) {
       point_first(at, fs::relative(first_shard(stranger), at).string());
     }},
    {"an index entry with a full path",
     [](const fs::path& at, const fs::path& stranger) {
       point_first(at, fs::absolute(first_shard(stranger)).string());
     }},
    {"an index entry gone",
     [](const fs::path& at, const fs::path&) {
       change_index(at, [](ordered_json& map) { map.erase(map.begin()); });
     }},
};

// "" where neither a gate nor an exception minds.
std::string found(const fs::path& source, const fs::path& result) {
  ValidateOptions options;
  options.only_bytes = true;
  try {
    const Report report = validate(open_checkpoint(source), result, options);
    for (const Check& check : report.checks) {
      if (check.outcome == Outcome::Fail) return check.name + ": " + check.note;
    }
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void convert_to(const fs::path& from, const fs::path& to) {
  const Checkpoint source = open_checkpoint(from);
  const Plan plan =
      make_plan(source, family_of(source.config()), nullptr, {.topology = "half_staggered"});
  convert(source, plan, nullptr, to, {});
}

}  // namespace

TEST_CASE("damaged conversions of every family are refused or found", "[validate]") {
  int64_t tried = 0;
  const std::vector<fs::path> all = cases();
  REQUIRE(all.size() == 16);
  for (size_t i = 0; i < all.size(); ++i) {
    const ScratchDir scratch;
    const fs::path& source = all[i];
    const fs::path& stranger = all[(i + 5) % all.size()];
    const fs::path good = scratch / "good", bad = scratch / "bad";
    convert_to(source, good);
    CHECK(found(source, good).empty());
    const auto before = snapshot(source);
    for (const Damage& damage : kDamages) {
      INFO(source << ": " << damage.name);
      LooseModel model(good);
      damage.change(model);
      model.write(bad);
      CHECK_FALSE(found(source, bad).empty());
      fs::remove_all(bad);
      ++tried;
    }
    for (const Raid& raid : kRaids) {
      INFO(source << ": " << raid.name);
      fs::copy(good, bad, fs::copy_options::recursive);
      raid.change(bad, stranger);
      CHECK_FALSE(found(source, bad).empty());
      CHECK_FALSE(validate_directory(bad).passed());  // nor does its own manifest fit
      fs::remove_all(bad);
      ++tried;
    }
    CHECK(snapshot(source) == before);
  }
  CHECK(tried >= 200);
}
