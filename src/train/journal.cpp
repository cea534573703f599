// train.jsonl, TensorBoard's points and the progress line.
#include "train/journal.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/disk.h"
#include "core/files.h"
#include "core/text.h"
#include "core/tree.h"
#include "moue/error.h"
#include "moue/log.h"
#include "moue/report.h"
#include "train/scalars.h"

namespace moue {
namespace {

using Json = nlohmann::ordered_json;  // writes what is not finite as null

// The lines of steps up to `last`; what follows the first line that is none was torn by a kill.
std::string lines_until(const std::filesystem::path& file, int64_t last) {
  if (!stands(file)) return "";
  std::istringstream in(read_whole_file(file, "train", UINT64_MAX));
  std::string kept;
  for (std::string line; std::getline(in, line);) {
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) break;
    if (json["step"].get<int64_t>() > last) break;
    kept += line + "\n";
  }
  return kept;
}

void add_routing(Json& json, const RoutingReport& routing) {
  json.update({{"foreign", routing.foreign},
               {"entropy", routing.entropy},
               {"margin", routing.margin},
               {"trajectory_bonus", routing.bonus},
               {"logit_spread", routing.spread},
               {"reuse", routing.reuse},
               {"reuse_chance", routing.reuse_chance},
               {"distinct", routing.distinct},
               {"utilisation", routing.utilisation}});
}

// Counts, which are whole numbers.
std::vector<std::vector<int64_t>> whole(const PerSlot& counts) {
  std::vector<std::vector<int64_t>> rows;
  for (const std::vector<double>& row : counts) rows.emplace_back(row.begin(), row.end());
  return rows;
}

// As many digits as a picture shows: a pool has thousands of experts.
std::vector<double> shortened(std::vector<double> values) {
  for (double& value : values) value = std::stod(fmt::format("{:.6g}", value));
  return values;
}

}  // namespace

Journal::Journal(const std::filesystem::path& out, int64_t resumed_at)
    : file_(out / "train.jsonl"), events_(out / "tensorboard", resumed_at + 1) {
  write_file_whole(file_, resumed_at > 0 ? lines_until(file_, resumed_at) : std::string());
  fd_ = Descriptor(disk::open(file_, O_WRONLY | O_APPEND | O_NOFOLLOW));
  if (fd_.get() < 0)
    fail_disk("train", "{} cannot be opened: {}", file_.string(), error_text(errno));
}

void Journal::write(const std::string& line) { append(fd_, line + "\n", file_, "train"); }

void Journal::add(const StepRecord& record) {
  Json json = {{"step", record.step},
               {"stage", to_string(record.stage)},
               {"loss", record.loss},
               {"mean_loss", record.mean_loss},
               {"lr", record.lr},
               {"grad_norm", record.grad_norm},
               {"skipped", record.skipped},
               {"spike", record.spike},
               {"tokens_per_second", record.tokens_per_second},
               {"epochs", record.epochs},
               {"alpha", record.alpha},
               {"balance_pool", record.balance.pool},
               {"balance_layer", record.balance.layer},
               {"foreign_share", record.load.foreign_share},
               {"max_vio", record.load.max_vio},
               {"pool_max_vio", record.load.pool_max_vio},
               {"dead", record.load.dead}};
  if (record.routing) add_routing(json, *record.routing);
  if (!record.chosen.empty()) {
    json["chosen"] = whole(record.chosen);
    json["exposure"] = shortened(record.exposure);
  }
  if (record.divergence) json["divergence"] = *record.divergence;
  write(json.dump());
  if (record.routing) events_.add(record.step, scalars_of(record));
}

void Journal::add(int64_t step, Stage stage, const HeldOut& held_out) {
  Json json = {{"step", step},
               {"stage", to_string(stage)},
               {"held_out", held_out.loss},
               {"held_out_standard_error", held_out.standard_error},
               {"held_out_foreign_share", held_out.foreign_share}};
  if (held_out.average) json["held_out_ema"] = *held_out.average;
  if (held_out.all_open) json["held_out_all_open"] = *held_out.all_open;
  write(json.dump());
  events_.add(step, scalars_of(held_out));
}

void Journal::add(const OpeningEffect& effect) {
  const Json json = {{"step", 0},
                     {"stage", to_string(Stage::Calibrate)},
                     {"changed_by_opening", effect.changed},
                     {"loss_closed", effect.loss_closed},
                     {"loss_open", effect.loss_open}};
  write(json.dump());
}

void show_progress(const StepRecord& record, int64_t steps) {
  log_progress({.stage = "train",
                .done = static_cast<double>(record.step),
                .total = static_cast<double>(steps),
                .unit = "steps",
                .note = fmt::format("{} loss {:.4f} lr {:.3g} {} tok/s{}", to_string(record.stage),
                                    record.loss, record.lr, count_text(record.tokens_per_second),
                                    record.skipped ? ", step skipped" : "")});
}

}  // namespace moue
