// What a run from scratch trains: initial weights, and the MoUE made of them.
#include "cli/from_scratch.h"

#include "checkpoint/manifest.h"
#include "core/tree.h"
#include "moue/error.h"
#include "moue/initial.h"
#include "moue/log.h"

namespace moue {

namespace {

namespace fs = std::filesystem;

// An earlier run's model is taken where it is what would be made now.
void require_same(const fs::path& model, const Config& wanted, const std::string& recipe) {
  const Checkpoint stands = open_checkpoint(model);
  const bool same =
      stands.config().text() == wanted.text() && read_manifest(model).recipe == recipe;
  if (!same)
    fail("train",
         "{} stands and was made with another plan or other settings of [convert]; remove it, or "
         "name another --out",
         model.string());
  log_line("train", "{} stands: it is taken as it is", model.string());
}

Plan plan_of(const Recipe& recipe, const Checkpoint& source) {
  if (!recipe.convert.plan.empty()) return read_plan(recipe.convert.plan);
  std::optional<Statistics> statistics;
  if (!recipe.plan.statistics.empty()) statistics = read_statistics(recipe.plan.statistics);
  return make_plan(source, family_of(source.config()), statistics ? &*statistics : nullptr,
                   recipe.plan);
}

// Scores and norms are of weights, which are not there yet.
void refuse_scores(const Recipe& recipe) {
  if (recipe.plan.topology == "similarity" || recipe.plan.donors == "weight")
    fail("train",
         "dry_run with init and a plan by {}, wanted one that needs no weights; name another, or "
         "run without dry_run first, which writes them",
         recipe.plan.topology == "similarity" ? "similarity" : "donors = \"weight\"");
}

}  // namespace

Checkpoint headers_for_training(const Recipe& recipe) {
  const TrainStage& train = recipe.train;
  if (stands(train.model)) return open_checkpoint(train.model);
  if (train.from_scratch) {
    const Checkpoint initial = initial_headers(train.init);
    if (train.control) return initial;
    refuse_scores(recipe);
    return planned_headers(initial, plan_of(recipe, initial));
  }
  if (train.control || recipe.source.empty()) return open_checkpoint(train.model);
  const Checkpoint source = open_checkpoint(recipe.source);
  return is_moue(source.config()) ? source : planned_headers(source, plan_of(recipe, source));
}

void make_from_scratch(const Recipe& recipe) {
  const fs::path initial = initial_directory(recipe), model = recipe.train.model;
  write_initial(recipe.train.init, initial,
                {.seed = recipe.train.seed, .shard_size = recipe.convert.shard_size});
  if (recipe.train.control) return;
  const Checkpoint source = open_checkpoint(initial);
  const Plan plan = plan_of(recipe, source);
  ConvertOptions options = recipe.convert;
  options.recipe = resolved(recipe, "convert", RecipePart::Reproducible);
  if (stands(model)) {
    require_same(model, with_pool(source.config(), plan.pool), options.recipe);
  } else {
    convert(source, plan, nullptr, model, options);
  }
}

}  // namespace moue
