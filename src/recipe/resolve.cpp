// The resolved recipe, the paths it derives, and the reference page.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/tree.h"
#include "moue/error.h"
#include "recipe/knob.h"

namespace moue {
namespace {

namespace fs = std::filesystem;

/// Tables to print, subtables included, in the order of the knobs.
std::vector<std::string_view> tables_with_knobs(std::string_view verb, const Recipe& recipe) {
  const auto wanted = tables_of(verb, recipe);
  std::vector<std::string_view> tables;
  for (const Knob& knob : knobs()) {
    const std::string_view table = knob.table();
    const bool chosen =
        verb.empty() || table.empty() ||
        std::count(wanted.begin(), wanted.end(), table.substr(0, table.find('.'))) > 0;
    if (chosen && std::count(tables.begin(), tables.end(), table) == 0) tables.push_back(table);
  }
  return tables;
}

std::string line_of(const Knob& knob, const Recipe& recipe) {
  const std::string_view name =
      std::string_view(knob.key).substr(knob.table().empty() ? 0 : knob.table().size() + 1);
  const std::string value = toml_text(knob, recipe);
  return value.empty() ? fmt::format("# {}: {}\n", name, knob.unset)
                       : fmt::format("{} = {}\n", name, value);
}

// The rows of a list of tables.
std::string rows_of(const RowList& list, const Recipe& recipe) {
  std::string text;
  Recipe shown;
  for (size_t row = 0; row < list.size(recipe); ++row) {
    list.show(recipe, row, shown);
    text += fmt::format("{}[[{}]]\n", text.empty() ? "" : "\n", list.table);
    for (const Knob& knob : knobs()) {
      if (knob.table() == list.table) text += line_of(knob, shown);
    }
  }
  return text;
}

bool has_rows(std::string_view table) { return find_rows(table) != nullptr; }

/// Where the run's directory holds a file, or the current directory when there is none.
fs::path in_run(const Recipe& recipe, const char* name) {
  return recipe.out.empty() ? fs::path(name) : recipe.out / name;
}

fs::path if_it_exists(const fs::path& file) { return stands(file) ? file : fs::path(); }

void set_if_empty(fs::path& path, const fs::path& fallback) {
  if (path.empty()) path = fallback;
}

/// The control of a run: in its directory or beside it.
fs::path control_of(const fs::path& directory) {
  if (directory.empty()) return {};
  fs::path run = directory.lexically_normal();
  if (!run.has_filename()) run = run.parent_path();  // "a/"
  for (const fs::path& place : {run, parent_of(run)}) {
    const fs::path control = place / "control";
    if (control != run && stands(control / "train.jsonl")) return control;
  }
  return {};
}

/// A run from scratch makes its model first, and has a schedule of its own (docs/method.md 7).
void fill_from_scratch(Recipe& recipe) {
  TrainStage& train = recipe.train;
  const fs::path initial = initial_directory(recipe);
  const fs::path made = train.control ? initial : initial.parent_path() / "model";
  if (!train.model.empty() && train.model != made)
    fail("recipe",
         "moue train has both a model, {}, and init, which makes {}, wanted one of them; leave "
         "train.model or train.init out",
         train.model.string(), made.string());
  train.model = made;
  train.from_scratch = true;
  const auto given = [&](const char* key) { return recipe.given.contains(key); };
  if (!given("train.open.from")) train.open.from = 0.2;
  if (!given("train.open.until")) train.open.until = std::max(0.6, train.open.from);
  if (!given("convert.seed")) recipe.convert.seed = train.seed;
  if (!recipe.out.empty())
    set_if_empty(recipe.convert.plan, if_it_exists(recipe.out / "plan.json"));
}

void fill_paths(Recipe& recipe) {
  const bool has_run = !recipe.out.empty();
  const auto run = [&](const char* name) { return has_run ? recipe.out / name : fs::path(); };
  if (recipe.verb == "measure") {
    set_if_empty(recipe.measure.plan, if_it_exists(run("plan.json")));
    set_if_empty(recipe.measure.out, in_run(recipe, "statistics.safetensors"));
  } else if (recipe.verb == "plan") {
    set_if_empty(recipe.plan.out, in_run(recipe, "plan.json"));
  } else if (recipe.verb == "convert") {
    set_if_empty(recipe.convert.plan, if_it_exists(run("plan.json")));
    set_if_empty(recipe.convert.out, run("model"));
  } else if (recipe.verb == "train") {
    const bool control = recipe.train.control;
    set_if_empty(recipe.train.out, run(control ? "control" : "train"));
    if (!recipe.train.init.empty()) fill_from_scratch(recipe);
    set_if_empty(recipe.train.model, control ? recipe.source : run("model"));
    const fs::path& shown = recipe.train.report.empty() ? recipe.train.out : recipe.train.report;
    if (!control) set_if_empty(recipe.train.compare, control_of(shown));
  } else if (recipe.verb == "validate") {
    set_if_empty(recipe.validate.result, run("model"));
    if (has_run) set_if_empty(recipe.validate.html, run("report.html"));
  }
}

/// What a verb cannot do without, and how each is named on the command line and in a recipe.
std::vector<std::string> missing(const Recipe& recipe) {
  std::vector<std::string> lacks;
  const auto need = [&](const fs::path& path, const char* what) {
    if (path.empty()) lacks.emplace_back(what);
  };
  const bool alone = (recipe.verb == "validate" && !recipe.validate.manifest.empty()) ||
                     (recipe.verb == "train" && !recipe.train.report.empty());
  if (recipe.verb != "train" && !recipe.families && !alone)
    need(recipe.source, "the model (first argument, or source = in a recipe)");
  if (recipe.verb == "measure") need(recipe.measure.tokens, "--tokens FILE");
  if (recipe.verb == "convert") need(recipe.convert.out, "--out DIR (or out = in a recipe)");
  if (recipe.verb == "train" && !alone) {
    need(recipe.train.model, "the model (first argument, or out = in a recipe)");
    if (recipe.train.data.empty())
      need(recipe.train.tokens, "--tokens FILE (or [[train.data]] in a recipe)");
    need(recipe.train.out, "--out DIR (or out = in a recipe)");
  }
  if (recipe.verb == "validate" && !alone) {
    need(recipe.validate.result, "the result (second argument, or out = in a recipe)");
  }
  return lacks;
}

std::string escaped(std::string text) {
  for (size_t at = text.find('|'); at != std::string::npos; at = text.find('|', at + 2))
    text.insert(at, "\\");
  return text;
}

std::string row_of(const Knob& knob, const Recipe& defaults) {
  const std::string value = toml_text(knob, defaults);
  const std::string name(
      std::string_view(knob.key).substr(knob.table().empty() ? 0 : knob.table().size() + 1));
  return fmt::format("| `{}` | {} | {} | {} |\n", name,
                     value.empty() ? knob.unset : fmt::format("`{}`", value),
                     escaped(range_text(knob)), escaped(knob.help));
}

}  // namespace

std::filesystem::path initial_directory(const Recipe& recipe) {
  return (recipe.out.empty() ? recipe.train.out.parent_path() : recipe.out) / "init";
}

Recipe with_paths(Recipe recipe) {
  fill_paths(recipe);
  const auto lacks = missing(recipe);
  if (!lacks.empty()) {
    fail("recipe", "moue {} lacks {}; see moue {} --help", recipe.verb, fmt::join(lacks, " and "),
         recipe.verb);
  }
  return recipe;
}

std::string resolved(const Recipe& recipe, std::string_view verb, RecipePart part) {
  std::string text;
  for (const std::string_view table : tables_with_knobs(verb, recipe)) {
    const RowList* list = find_rows(table);
    std::string lines = list != nullptr ? rows_of(*list, recipe) : "";
    for (const Knob& knob : knobs()) {
      if (knob.table() != table || knob.in_row) continue;
      if (part == RecipePart::Reproducible && !knob.reproducible) continue;
      const std::string line = line_of(knob, recipe);
      // json and quiet say how this run speaks, not what it does: only where they are set.
      if (!(table.empty() && line.ends_with("= false\n"))) lines += line;
    }
    const bool idle =
        (verb == "convert" || verb == "train") && table == "plan" && !recipe.convert.plan.empty();
    if (lines.empty() || idle) continue;
    if (!text.empty()) text += '\n';
    text += table.empty() || has_rows(table) ? lines : fmt::format("[{}]\n{}", table, lines);
  }
  return text;
}

std::string recipe_reference() {
  const Recipe defaults;
  std::string page =
      "# Recipes: every key\n\n"
      "Written by `moue --recipe_reference`; a test compares this page with the program.\n\n"
      "A recipe is a TOML file given with `--recipe FILE`. Flags are spelled as the keys without "
      "their first\n"
      "table (`[train.open] until` is `moue train --open.until`) and win over the file. An unknown "
      "key, a\n"
      "wrong type or a value out of range stops the run; a setting without effect is a warning. "
      "Paths are\n"
      "relative to the current directory. OUT stands for the key `out`, the run's directory.\n";
  for (const std::string_view table : tables_with_knobs("", defaults)) {
    page += table.empty()     ? "\n## At the top\n"
            : has_rows(table) ? fmt::format("\n## [[{}]]\n", table)
                              : fmt::format("\n## [{}]\n", table);
    page += "\n| key | default | accepted | meaning |\n|---|---|---|---|\n";
    for (const Knob& knob : knobs()) {
      if (knob.table() == table) page += row_of(knob, defaults);
    }
  }
  return page;
}

}  // namespace moue
