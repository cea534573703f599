// G0 without LibTorch: compares a result with its source byte by byte and checks what was added.
#include "validate/bytes.h"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/disk.h"
#include "core/files.h"
#include "core/text.h"
#include "moue/error.h"
#include "moue/family.h"
#include "moue/log.h"
#include "pool/new_experts.h"
#include "validate/compare.h"

namespace moue {

namespace fs = std::filesystem;

namespace {

// Runs a check that throws; what it says becomes a fault.
bool attempt(Faults& faults, const std::function<void()>& check) {
  try {
    check();
    return true;
  } catch (const Error& error) {
    faults.emplace_back(error.what());
    return false;
  }
}

// The first number of a tensor that breaks a rule.
std::string first_bad(const Checkpoint& result, std::string_view name, const char* wanted,
                      bool (*good)(double)) {
  const TensorInfo& tensor = result.at(name);
  const std::vector<double> values = result.values(tensor);
  const auto bad = std::ranges::find_if_not(values, good);
  if (bad == values.end()) return "";
  return fmt::format("{} holds {} at index {}, wanted {}", name, *bad, bad - values.begin(),
                     wanted);
}

void add(Faults& faults, std::string fault) {
  if (!fault.empty()) faults.push_back(std::move(fault));
}

void check_finite(const Checkpoint& result, const Pool& pool, const ModelSpec& spec,
                  Faults& faults) {
  for (const PoolTensor& tensor : pool_tensors(pool, spec)) {
    add(faults, first_bad(result, tensor.name, "finite numbers",
                          [](double value) { return std::isfinite(value); }));
  }
}

// Tells files that are one and the same by device and inode.
class SameFiles {
 public:
  SameFiles(const Checkpoint& original, const Checkpoint& result)
      : original_(identities(original)), result_(identities(result)) {}
  bool operator()(uint32_t original_file, uint32_t result_file) const {
    return original_[original_file] == result_[result_file];
  }

 private:
  using Identity = std::pair<dev_t, ino_t>;
  static std::vector<Identity> identities(const Checkpoint& checkpoint) {
    std::vector<Identity> all;
    for (const WeightFile& file : checkpoint.files()) {
      struct stat status {};
      if (disk::stat(file.path(), status) != 0) {
        fail("validate", "{}: {}", file.path().string(), std::strerror(errno));
      }
      all.emplace_back(status.st_dev, status.st_ino);
    }
    return all;
  }
  std::vector<Identity> original_, result_;
};

ReadBytes reader(const Checkpoint& checkpoint, const TensorInfo& tensor) {
  return [&](uint64_t from, std::span<std::byte> out) { checkpoint.read(tensor, from, out); };
}

std::string tensor_fault(const Checkpoint& original, const TensorInfo& wanted,
                         const Checkpoint& result, const SameFiles& same_file) {
  const TensorInfo* seen = result.find(wanted.name);
  if (seen == nullptr) {
    return is_repeated_head(original, wanted) ? "" : wanted.name + " is missing";
  }
  const bool is_cast = can_be_cast(wanted.dtype, seen->dtype);
  if ((seen->dtype != wanted.dtype && !is_cast) || seen->shape != wanted.shape) {
    return fmt::format("{} is {} {}, wanted {} {}", wanted.name, dtype_name(seen->dtype),
                       shape_text(seen->shape), dtype_name(wanted.dtype), shape_text(wanted.shape));
  }
  if (!seen->strided && !wanted.strided && seen->offset == wanted.offset &&
      same_file(wanted.file, seen->file))
    return "";
  const auto differs = first_difference(
      seen->bytes, 8, cast_reader(reader(original, wanted), wanted.dtype, seen->dtype),
      reader(result, *seen));
  if (!differs) return "";
  return fmt::format("{} differs from{} byte {} of {} on", wanted.name,
                     is_cast ? " the source's, rounded, from" : "", *differs, seen->bytes);
}

std::string other_file_fault(const fs::path& original, const fs::path& result) {
  const InputFile a(original, "validate"), b(result, "validate");
  const std::string name = result.filename().string();
  if (a.size() != b.size()) {
    return fmt::format("{} has {} bytes, the source's has {}", name, b.size(), a.size());
  }
  const auto differs = first_difference(
      a.size(), 1, [&](uint64_t from, auto out) { a.read_at(from, out); },
      [&](uint64_t from, auto out) { b.read_at(from, out); });
  if (!differs) return "";
  return fmt::format("{} differs from byte {} on", name, *differs);
}

std::vector<float> rounded(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

// Source router rows by MoE layer, read when first asked for.
class Routers {
 public:
  Routers(const Checkpoint& original, const Claims& claims, const Pool& pool)
      : original_(original), claims_(claims), pool_(pool), rows_(pool.slots.size()) {}
  std::span<const float> row(Home home, int64_t width) {
    std::vector<float>& rows = rows_[home.layer];
    if (rows.empty()) {
      const TensorInfo& router = claims_.at(Role::Router, pool_.moe_layers[home.layer]);
      rows = rounded(original_.values(router));
    }
    return std::span<const float>(rows).subspan(home.expert * width, width);
  }

 private:
  const Checkpoint& original_;
  const Claims& claims_;
  const Pool& pool_;
  std::vector<std::vector<float>> rows_;
};

void check_foreign_rows(Routers& routers, const Checkpoint& result, const Pool& pool, int64_t layer,
                        Faults& faults) {
  const TensorInfo& tensor = result.at(names::router_weight(layer));
  const auto rows = rounded(result.values(tensor));
  const int64_t width = tensor.shape[1];
  for (int64_t i = 0; i < pool.num_foreign(layer); ++i) {
    const int32_t p = pool.slots[layer][pool.experts_per_layer + i];
    const Home home = pool.home[p];
    const std::span<const float> wanted = routers.row(home, width);
    if (std::memcmp(&rows[i * width], wanted.data(), wanted.size_bytes()) == 0) continue;
    faults.push_back(
        fmt::format("row {} of {} is not the row of expert {} (MoE layer {}, expert {})", i,
                    tensor.name, p, home.layer, home.expert));
  }
}

// A new expert must be its donor's copy, bit for bit.
void check_new_experts(const Checkpoint& original, const Claims& claims, const ModelSpec& spec,
                       const Checkpoint& result, const Pool& pool, Faults& faults) {
  for (const NewTensor& wanted : new_tensors(claims, pool, spec)) {
    const TensorInfo& seen = result.at(wanted.name);
    if (seen.dtype != wanted.dtype && !can_be_cast(wanted.dtype, seen.dtype)) {
      faults.push_back(fmt::format("{} is {}, wanted its donor's {}", wanted.name,
                                   dtype_name(seen.dtype), dtype_name(wanted.dtype)));
      continue;
    }
    const uint64_t row = wanted.row_bytes();
    const ReadBytes donor = [&](uint64_t from, std::span<std::byte> out) {
      read_rows(original, wanted, static_cast<int64_t>(from / row),
                static_cast<int64_t>(out.size() / row), out);
    };
    const auto differs =
        first_difference(seen.bytes, seen.bytes / static_cast<uint64_t>(wanted.shape[0]),
                         cast_reader(donor, wanted.dtype, seen.dtype), reader(result, seen));
    if (!differs) continue;
    faults.push_back(
        fmt::format("{} differs from its donor's (MoE layer {}, expert {}) from byte "
                    "{} of {} on",
                    wanted.name, wanted.donor.layer, wanted.donor.expert, *differs, seen.bytes));
  }
}

void check_drawn(const Checkpoint& result, const char* name, Faults& faults) {
  const TensorInfo& tensor = result.at(name);
  const std::vector<double> values = result.values(tensor);
  const int64_t width = tensor.shape[1];
  for (int64_t p = 0; p < tensor.shape[0]; ++p) {
    const auto row = std::span(values).subspan(p * width, width);
    if (std::ranges::any_of(row, [](double value) { return value != 0; })) continue;
    faults.push_back(fmt::format("{} is all zero for expert {}, which then never learns", name, p));
  }
}

}  // namespace

Check check_of(std::string name, const Faults& faults, std::string pass_note) {
  Check check{std::move(name), Outcome::Pass, static_cast<double>(faults.size()), 0.0,
              std::move(pass_note)};
  if (faults.empty()) return check;
  check.outcome = Outcome::Fail;
  check.note = join_some(faults, 5);
  return check;
}

Faults structure_faults(const Checkpoint& original, const Checkpoint& result) {
  Faults faults;
  attempt(faults, [&] {
    const Family& family = family_of(result.config());
    const Family& wanted = family_of(original.config());
    if (&family != &wanted) {
      fail("validate", "the result is of family {}, the source of {}", family.name, wanted.name);
    }
    const ModelSpec spec = wanted.spec(original.config());
    claim(result, family);
    if (is_moue(result.config())) {
      const Pool pool = read_pool(result.config());
      check_pool(pool, spec.experts_per_token);
      check_pool_fits(pool, spec, result);
      check_finite(result, pool, spec, faults);
    }
  });
  return faults;
}

Faults config_faults(const Checkpoint& original, const Checkpoint& result) {
  Faults faults;
  attempt(faults, [&] {
    Config::Json seen = without_pool(result.config()).json();
    // convert --dtype renames the type of the weights, and that alone.
    for (const char* key : {"dtype", "torch_dtype"}) {
      const bool both = seen.contains(key) && original.config().json().contains(key);
      if (both && casts_of(original, result).tensors > 0)
        seen[key] = original.config().json().at(key);
    }
    if (Config(std::move(seen)).text() != original.config().text()) {
      faults.push_back("config.json without its moue block is not the source's");
    }
  });
  return faults;
}

Faults tensor_faults(const Checkpoint& original, const Checkpoint& result) {
  Faults faults;
  const SameFiles same_file(original, result);
  Progress progress{"validate", 0, static_cast<double>(original.data_bytes()), "B", "G0 tensors"};
  for (const TensorInfo& tensor : original.tensors()) {
    add(faults, tensor_fault(original, tensor, result, same_file));
    progress.done += static_cast<double>(tensor.bytes);
    log_progress(progress);
  }
  for (const TensorInfo& tensor : result.tensors()) {
    if (is_pool_tensor(tensor.name) || original.find(tensor.name) != nullptr) continue;
    faults.push_back(printable(tensor.name) + " is not in the source");
  }
  return faults;
}

Faults start_faults(const Checkpoint& original, const Checkpoint& result, const Pool& pool) {
  Faults faults;
  const Family& family = family_of(original.config());
  const Claims claims = claim(original, family);
  check_new_experts(original, claims, family.spec(original.config()), result, pool, faults);
  Routers routers(original, claims, pool);
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    check_foreign_rows(routers, result, pool, layer, faults);
  }
  check_drawn(result, names::kKey, faults);
  check_drawn(result, names::kQuery, faults);
  return faults;
}

Faults closed_faults(const Checkpoint& result, const Pool& pool) {
  Faults faults;
  const auto zero = [](double value) { return value == 0; };
  for (int64_t layer = 0; layer < pool.num_moe_layers(); ++layer) {
    for (const std::string& name :
         {names::router_visibility(layer), names::trajectory_gain(layer)}) {
      add(faults, first_bad(result, name, "0 while the pool is closed", zero));
    }
  }
  add(faults, first_bad(result, names::kPoolBias, "0 while the pool is closed", zero));
  return faults;
}

Faults other_file_faults(const Checkpoint& original, const Checkpoint& result) {
  Faults faults;
  for (const std::string& name : original.other_files()) {
    attempt(faults, [&] {
      // A MoUE has a card of its own beside its source's.
      const bool moved = name == "README.md" && is_moue(result.config());
      add(faults, other_file_fault(original.directory() / name,
                                   result.directory() / (moved ? "README.parent.md" : name)));
    });
  }
  return faults;
}

}  // namespace moue
