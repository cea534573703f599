// What a run would take, before anything is loaded: memory by part, time, disk, what fits.
#include "train/dry_run.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "core/disk.h"
#include "core/tree.h"
#include "moue/error.h"
#include "moue/model.h"
#include "train/estimate.h"
#include "train/state.h"

namespace fs = std::filesystem;

namespace moue {
namespace {

// What steps reach of the rate of large products (docs/benchmarks.md); the rest is attention,
// pointwise work, small products and the optimizer.
constexpr double kShareCpu = 0.6, kShareCuda = 0.4;
// Of one H100 or H200, 8192^3, measured: bfloat16, and float32 without TF32.
constexpr double kCudaBFloat16 = 790e12, kCudaFloat32 = 50e12;

struct Rate {
  double operations = 0;  ///< a second
  std::string from;
};

// The best of a few products in some tenths of a second.
double measured_rate(const TrainOptions& o) {
  const int64_t size = o.device == "cuda" ? 8192 : 1024;
  const at::Tensor x =
      at::rand({size, size}, at::TensorOptions(device_of(o.device))).to(scalar_type(o.dtype));
  double best = 0;
  for (int trial = 0; trial < 6; ++trial) {
    const auto begin = std::chrono::steady_clock::now();
    at::mm(x, x).sum().item<double>();  // waits
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    best = std::max(best, 2.0 * static_cast<double>(size * size * size) / took.count());
  }
  return best;
}

Rate rate_of(const TrainOptions& o) {
  if (o.product_rate > 0) return {o.product_rate * 1e12, "stated"};
  set_threads(o.threads);
  if (o.device != "cuda" || at::hasCUDA()) return {measured_rate(o), "measured here"};
  return {o.dtype == "bfloat16" ? kCudaBFloat16 : kCudaFloat32, "assumed: one H100 or H200"};
}

double memory_of(const TrainOptions& o) {
  if (o.device_memory > 0) return static_cast<double>(o.device_memory);
  if (o.device == "cuda") return 80e9;
  return static_cast<double>(::sysconf(_SC_PHYS_PAGES)) *
         static_cast<double>(::sysconf(_SC_PAGE_SIZE));
}

// How many saved steps lie side by side at most.
int64_t most_checkpoints(const TrainOptions& o) {
  const int64_t saves = o.save_every > 0 ? (o.steps + o.save_every - 1) / o.save_every : 1;
  if (o.keep_last == 0 || saves <= o.keep_last) return saves;
  const int64_t keepers = o.keep_every > 0 ? o.steps / o.keep_every : 0;
  return std::min(saves,
                  o.keep_last + 1 + keepers);  // the new one is whole before the old one goes
}

// Nothing where the system does not say.
double free_bytes(fs::path at) {
  while (!at.empty() && !stands(at)) at = at.parent_path();
  struct statvfs status {};
  if (disk::space(at.empty() ? fs::path(".") : at, status) != 0) return 0;
  return static_cast<double>(status.f_bavail) * static_cast<double>(status.f_frsize);
}

/// Settings under which the same model may fit, gentlest first.
struct Choice {
  std::string name;
  TrainOptions options;
};

std::vector<Choice> choices(const TrainOptions& asked, const Estimator& estimator) {
  std::vector<Choice> all = {{"as asked", asked}};
  const auto add = [&](const std::string& name, auto... changes) {
    TrainOptions changed = asked;
    (changes(changed), ...);
    all.push_back({name, changed});
  };
  const auto recompute = [](TrainOptions& o) { o.recompute = true; };
  const auto one_row = [](TrainOptions& o) { o.micro_batch = 1; };
  const auto narrow = [](TrainOptions& o) { o.dtype = "bfloat16"; };
  const std::string experts = estimator.experts_pattern();
  const auto freeze = [&](TrainOptions& o) { o.freeze.push_back(experts); };
  const auto pool_only = [](TrainOptions& o) {
    o.groups.push_back({"*", 1, -1, true, 0});
    o.groups.push_back({"moue.*", 1, -1, false, 0});
  };
  if (!asked.recompute) add("recompute = true", recompute);
  if (asked.micro_batch > 1) add("micro_batch = 1", one_row);
  if (!asked.recompute && asked.micro_batch > 1)
    add("recompute = true, micro_batch = 1", recompute, one_row);
  if (asked.dtype == "float32") add("dtype = \"bfloat16\"", narrow);
  if (!experts.empty()) {
    add(fmt::format("freeze = [\"{}\"]", experts), freeze);
    add(fmt::format("freeze = [\"{}\"], recompute = true, micro_batch = 1, dtype = \"bfloat16\"",
                    experts),
        freeze, recompute, one_row, narrow);
  }
  if (!asked.control)
    add("groups that freeze all but moue.*, recompute = true, micro_batch = 1, dtype = "
        "\"bfloat16\"",
        pool_only, recompute, one_row, narrow);
  return all;
}

std::string gigabytes(double bytes) { return bytes_text(static_cast<uint64_t>(bytes)); }

Table memory_table(const Estimate& estimate) {
  Table table{"memory", "Memory at the peak of a step", {"part", "bytes", "", "changed by"}, {}};
  for (const MemoryPart& part : estimate.memory) {
    if (part.bytes > 0)
      table.rows.push_back(
          {part.title, static_cast<int64_t>(part.bytes), gigabytes(part.bytes), part.settings});
  }
  return table;
}

void add_choices(const std::vector<Choice>& all, const Estimator& estimator, double memory,
                 Report& report) {
  Table table{"choices", "What fits", {"settings", "peak", "", "fits", "work"}, {}};
  std::string first;
  double asked_work = 0, asked_peak = 0;
  for (const Choice& choice : all) {
    const Estimate estimate = estimator.estimate(settled(choice.options));
    const double peak = estimate.peak();
    if (asked_work > 0 && peak == asked_peak) continue;  // as it is already
    if (asked_work == 0) asked_work = estimate.step_work, asked_peak = peak;
    table.rows.push_back({choice.name, static_cast<int64_t>(peak), gigabytes(peak), peak <= memory,
                          fmt::format("{:.2f}", estimate.step_work / asked_work)});
    if (first.empty() && peak <= memory) first = choice.name;
  }
  report.tables.push_back(std::move(table));
  if (first == "as asked") return;
  report.warnings.push_back(
      first.empty()
          ? fmt::format("nothing of this fits {}: more memory is needed, or several "
                        "devices, over which this version does not spread a model",
                        gigabytes(memory))
          : fmt::format("as asked it does not fit {}; with {} it does", gigabytes(memory), first));
}

}  // namespace

Report estimate_run(const Checkpoint& model, const fs::path& out, const TrainOptions& options) {
  check_options(options);
  const TrainOptions o = settled(options);
  const Estimator estimator(model);
  const Estimate estimate = estimator.estimate(o);
  const Rate rate = rate_of(o);
  const bool cuda = o.device == "cuda";
  const double memory = memory_of(o), share = cuda ? kShareCuda : kShareCpu;
  const double step = estimate.step_work / (rate.operations * share);
  const auto steps = static_cast<double>(o.steps);
  const double losses = o.eval_every > 0 ? steps / static_cast<double>(o.eval_every) + 2 : 2;
  const double held_out = losses * estimate.held_out_work / (rate.operations * share);
  const double disk = estimate.checkpoint * static_cast<double>(most_checkpoints(o));
  const double room = free_bytes(out);
  Report report;
  report.verb = "train";
  report.title = "What the training of " + model.directory().string() + " would take";
  report.facts = {
      {"parameters", estimate.parameters, ""},
      {"trained", estimate.trained, ""},
      {"device", o.device, ""},
      {"device_memory", static_cast<int64_t>(memory), "B"},
      {"peak_memory", static_cast<int64_t>(estimate.peak()), "B"},
      {"fits", estimate.peak() <= memory, ""},
      {"tokens", o.steps * o.batch * o.length, ""},
      {"step_work", estimate.step_work, "FLOP"},
      {"product_rate", rate.operations / 1e12, "TFLOP/s"},
      {"product_rate_is", rate.from, ""},
      {"share_of_rate", share, ""},
      {"step_seconds", step, "s"},
      {"held_out_seconds", held_out, "s"},
      {"time", duration_text(steps * step + held_out), ""},
      {"seconds", steps * step + held_out, "s"},
      {"checkpoint", static_cast<int64_t>(estimate.checkpoint), "B"},
      {"checkpoints", most_checkpoints(o), ""},
      {"disk", static_cast<int64_t>(disk), "B"},
      {"disk_free", static_cast<int64_t>(room), "B"},
  };
  if (cuda) report.facts.push_back({"host_memory", static_cast<int64_t>(estimate.largest), "B"});
  report.tables.push_back(memory_table(estimate));
  add_choices(choices(o, estimator), estimator, memory, report);
  if (disk > room)
    report.warnings.push_back(
        fmt::format("{} of checkpoints do not fit the {} that are free; save_every and keep_last "
                    "change that",
                    gigabytes(disk), gigabytes(room)));
  return report;
}

}  // namespace moue
