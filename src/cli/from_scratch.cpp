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
  const bool same = stands.config().text() == wanted.text() &&
                    read_manifest(model).recipe == recipe;
  if (!same)
    fail("train",
         "{} stands and was made with another plan or other settings of [convert]; remove it, or "
         "name another --out",
         model.string());
  log_line("train", "{} stands: it is taken as it is", model.string());
}

}  // namespace

void make_from_scratch(const Recipe& recipe) {
  const fs::path initial = initial_directory(recipe), model = recipe.train.model;
  write_initial(recipe.train.init, initial,
                {.seed = recipe.train.seed, .shard_size = recipe.convert.shard_size});
  if (recipe.train.control) return;
  const Checkpoint source = open_checkpoint(initial);
  const Plan plan =
      recipe.convert.plan.empty()
          ? make_plan(source, family_of(source.config()), nullptr, recipe.plan)
          : read_plan(recipe.convert.plan);
  ConvertOptions options = recipe.convert;
  options.recipe = resolved(recipe, "convert", RecipePart::Reproducible);
  if (stands(model)) {
    require_same(model, with_pool(source.config(), plan.pool), options.recipe);
  } else {
    convert(source, plan, nullptr, model, options);
  }
}

}  // namespace moue
