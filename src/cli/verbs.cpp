// Each verb: reads its files, calls the library, writes its result.
#include "cli/verbs.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/from_scratch.h"
#include "core/files.h"
#include "core/tree.h"
#include "moue/error.h"
#include "moue/inspect.h"
#include "moue/log.h"

namespace moue {
namespace {

namespace fs = std::filesystem;

constexpr const char* kResolvedBy = "# The last run's recipe, as moue resolved it.\n";

/// A result is replaced only where the user named the file himself.
void refuse_existing(const Recipe& recipe, const char* key, const fs::path& file) {
  if (recipe.given.contains(key) || !stands(file)) return;
  fail(recipe.verb, "{} exists; name it with --out to replace it, or name another", file.string());
}

/// Makes the directory a result is written into.
void make_parent(const fs::path& file) {
  if (file.has_parent_path()) make_directories(file.parent_path(), "files");
}

void write_text(const fs::path& file, const std::string& text) {
  make_parent(file);
  write_file_whole(file, text);
}

void add_file(Report& report, const char* key, const fs::path& file) {
  report.facts.push_back({key, file.string(), ""});
}

Report run_inspect(const Recipe& recipe) {
  if (recipe.families) return families_report();
  const Checkpoint source = open_checkpoint(recipe.source);
  return inspect(source, family_of(source.config()));
}

Report run_measure(const Recipe& recipe) {
  refuse_existing(recipe, "measure.out", recipe.measure.out);
  const Checkpoint source = open_checkpoint(recipe.source);
  std::optional<Plan> plan;
  if (!recipe.measure.plan.empty()) plan = read_plan(recipe.measure.plan);
  const Statistics statistics = measure(source, plan ? &*plan : nullptr, recipe.measure);
  make_parent(recipe.measure.out);
  write_statistics(statistics, recipe.measure.out);
  Report report = report_of(statistics);
  add_file(report, "statistics", recipe.measure.out);
  return report;
}

Plan planned(const Recipe& recipe, const Checkpoint& source) {
  std::optional<Statistics> statistics;
  if (!recipe.plan.statistics.empty()) statistics = read_statistics(recipe.plan.statistics);
  return make_plan(source, family_of(source.config()), statistics ? &*statistics : nullptr,
                   recipe.plan);
}

std::vector<std::string> names_in(const std::string& list) {
  std::vector<std::string> names;
  std::istringstream words(list);
  for (std::string name; std::getline(words, name, ',');) {
    if (name == "all") return {};
    names.push_back(name);
  }
  return names;
}

Report run_comparison(const Recipe& recipe) {
  const Checkpoint source = open_checkpoint(recipe.source);
  std::optional<Statistics> statistics;
  if (!recipe.plan.statistics.empty()) statistics = read_statistics(recipe.plan.statistics);
  return compare_plans(source, family_of(source.config()), statistics ? &*statistics : nullptr,
                       recipe.plan, names_in(recipe.plan.compare));
}

Report run_plan(const Recipe& recipe) {
  if (!recipe.plan.compare.empty()) return run_comparison(recipe);
  refuse_existing(recipe, "plan.out", recipe.plan.out);
  const Checkpoint source = open_checkpoint(recipe.source);
  const Plan plan = planned(recipe, source);
  make_parent(recipe.plan.out);
  write_plan(plan, recipe.plan.out);
  Report report = report_of(plan, source);
  add_file(report, "plan", recipe.plan.out);
  return report;
}

/// A plan that the user names has nothing to say to a model that takes none.
void refuse_plan(const Recipe& recipe, const Checkpoint& source) {
  for (const char* key : {"convert.plan", "convert.statistics"}) {
    if (!recipe.given.contains(key)) continue;
    fail("convert", "{} is given, but {} {}; leave it out", key, source.directory().string(),
         is_moue(source.config()) ? "is a MoUE already and is only written in another layout"
                                  : "is to stay an ordinary model");
  }
}

/// The same, with nothing of [plan] to tell: as if a file had it.
Recipe without_plan(Recipe recipe) {
  recipe.convert.plan = "none";
  return recipe;
}

Report run_convert(const Recipe& recipe) {
  const Checkpoint source = open_checkpoint(recipe.source);
  ConvertOptions options = recipe.convert;
  options.recipe = resolved(recipe, "convert", RecipePart::Reproducible);
  if (!needs_plan(source, options)) {
    refuse_plan(recipe, source);
    options.recipe = resolved(without_plan(recipe), "convert", RecipePart::Reproducible);
    return convert(source, recipe.convert.out, options);
  }
  const Plan plan =
      recipe.convert.plan.empty() ? planned(recipe, source) : read_plan(recipe.convert.plan);
  std::optional<Statistics> statistics;
  if (!recipe.convert.statistics.empty()) statistics = read_statistics(recipe.convert.statistics);
  return convert(source, plan, statistics ? &*statistics : nullptr, recipe.convert.out, options);
}

bool is_report(const Recipe& recipe) {
  return recipe.verb == "train" && !recipe.train.report.empty();
}

Report run_train(const Recipe& recipe) {
  if (is_report(recipe)) return report_run(recipe.train.report, recipe.train.compare);
  TrainOptions options = recipe.train;
  if (recipe.train.dry_run)
    return estimate_training(headers_for_training(recipe), recipe.train.out, options);
  if (recipe.train.from_scratch) make_from_scratch(recipe);
  options.recipe = resolved(recipe, "train");
  return train(recipe.train.model, recipe.train.out, options);
}

Report gates(const Recipe& recipe) {
  const Checkpoint original = open_checkpoint(recipe.source);
  make_parent(recipe.validate.html);
  return validate(original, recipe.validate.result, recipe.validate);
}

Report run_validate(const Recipe& recipe) {
  if (!recipe.validate.manifest.empty()) return validate_directory(recipe.validate.manifest);
  Report report = gates(recipe);
  if (!recipe.out.empty()) write_text(recipe.out / "report.json", to_json(report));
  return report;
}

/// OUT/recipe.toml says what the last run used; a file of the user's own under that name is left
/// alone.
void keep_recipe(const Recipe& recipe) {
  const bool is_dry = (recipe.verb == "convert" && recipe.convert.dry_run) ||
                      (recipe.verb == "train" && recipe.train.dry_run);
  if (recipe.out.empty() || recipe.verb == "inspect" || is_dry || is_report(recipe)) return;
  const fs::path file = recipe.out / "recipe.toml";
  if (stands(file) && !read_whole_file(file, "recipe").starts_with(kResolvedBy)) return;
  write_text(file, kResolvedBy + resolved(recipe, ""));
}

/// The settings of this run, those left unset aside.
std::string settings_text(const Recipe& recipe) {
  std::istringstream lines(resolved(recipe, recipe.verb));
  std::string text;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && !line.starts_with('#')) text += "\n  " + line;
  }
  return text;
}

void announce(const Recipe& recipe) {
  for (const auto& warning : recipe.warnings) log_line("recipe", "warning: {}", warning);
  if (recipe.verb != "inspect" && !is_report(recipe))
    log_line("recipe", "moue {} runs with{}", recipe.verb, settings_text(recipe));
}

Report dispatch(const Recipe& recipe) {
  if (recipe.verb == "inspect") return run_inspect(recipe);
  if (recipe.verb == "measure") return run_measure(recipe);
  if (recipe.verb == "plan") return run_plan(recipe);
  if (recipe.verb == "convert") return run_convert(recipe);
  if (recipe.verb == "train") return run_train(recipe);
  return run_validate(recipe);
}

}  // namespace

Report run_verb(const Recipe& asked) {
  const Recipe recipe = with_paths(asked);
  announce(recipe);
  Report report = dispatch(recipe);
  keep_recipe(asked);
  report.warnings.insert(report.warnings.begin(), recipe.warnings.begin(), recipe.warnings.end());
  return report;
}

std::string error_json(const std::string& message, int exit_code) {
  const size_t end = message.starts_with('[') ? message.find("] ") : std::string::npos;
  const bool staged = end != std::string::npos;
  const nlohmann::ordered_json object = {{"error",
                                          {{"stage", staged ? message.substr(1, end - 1) : "cli"},
                                           {"message", staged ? message.substr(end + 2) : message},
                                           {"exit_code", exit_code}}}};
  return object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace moue
