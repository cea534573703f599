// Recipe: what the user asks of every stage, from a recipe file and the command line. Reference:
// docs/recipe.md.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "moue/convert.h"
#include "moue/measure.h"
#include "moue/plan.h"
#include "moue/train.h"
#include "moue/validate.h"

namespace moue {

/// A verb's options and the files it reads and writes. An empty path is derived from `Recipe::out`.
struct MeasureStage : MeasureOptions {
  std::filesystem::path plan;  ///< plan.json to calibrate for; "" = OUT/plan.json where it exists
  std::filesystem::path out;   ///< "" = OUT/statistics.safetensors
};
struct PlanStage : PlanOptions {
  std::string compare;               ///< names, "all"; "" = make one plan
  std::filesystem::path statistics;  ///< "" = none
  std::filesystem::path out;         ///< "" = OUT/plan.json
};
struct ConvertStage : ConvertOptions {
  std::filesystem::path plan;        ///< "" = OUT/plan.json where it exists, else made from [plan]
  std::filesystem::path statistics;  ///< "" = none
  std::filesystem::path out;         ///< "" = OUT/model
};
struct TrainStage : TrainOptions {
  std::filesystem::path model;   ///< "" = OUT/model, with control the source (init: OUT/init)
  std::filesystem::path init;    ///< config to train from scratch: OUT/init and OUT/model are made
  std::filesystem::path out;     ///< "" = OUT/train, with control OUT/control
  std::filesystem::path report;  ///< a run to report on, training nothing; "" = train
  bool dry_run = false;          ///< says what it would take; writes nothing
};
struct ValidateStage : ValidateOptions {
  std::filesystem::path result;  ///< "" = OUT/model
};

struct Recipe {
  std::string verb;     ///< "inspect", ...; "" when `message` is all there is to show
  std::string message;  ///< help, version or reference that was asked for

  std::filesystem::path source;  ///< the checkpoint to start from
  std::filesystem::path out;     ///< OUT, the run's directory; "" = none
  bool json = false;             ///< stdout carries one JSON object
  bool families = false;         ///< inspect: what is supported, instead of a checkpoint
  bool quiet = false;            ///< no lines and no progress on stderr
  MeasureStage measure;
  PlanStage plan;
  ConvertStage convert;
  TrainStage train;
  ValidateStage validate;
  TrainGroup group;  ///< the row of [[train.groups]] that is being read or shown
  TrainSource data;  ///< the same of [[train.data]]

  std::set<std::string> given;        ///< keys set by the file or a flag: "train.open.until"
  std::vector<std::string> warnings;  ///< settings without effect in this run
};

/// The command line, and the file it names with --recipe; flags win. Throws Error "[recipe] ..."
/// with all unknown keys or flags (and the nearest known one), wrong types and values out of range
/// at once.
Recipe read_recipe(int argc, const char* const* argv);

/// A recipe file's text alone; `origin` names it in errors.
Recipe parse_recipe(std::string_view text, const std::string& origin);

/// Fills the empty paths that `recipe.verb` needs. Throws Error naming what can be derived from
/// nothing.
Recipe with_paths(Recipe recipe);

/// Where a run from scratch puts its initial weights: OUT/init, without OUT beside `train.out`.
std::filesystem::path initial_directory(const Recipe& recipe);

/// Which part of a recipe is written down: all of it, or what decides the bytes of a result (no
/// paths, threads, memory limits).
enum class RecipePart : uint8_t { All, Reproducible };

/// The recipe as TOML with every key of the verb's tables ("" = all tables). Reading it gives the
/// same recipe, and resolving that the same text.
std::string resolved(const Recipe& recipe, std::string_view verb,
                     RecipePart part = RecipePart::All);

/// docs/recipe.md: every key with its default, range and meaning.
std::string recipe_reference();

}  // namespace moue
