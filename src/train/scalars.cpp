// The records of a run as curves of TensorBoard.
#include "train/scalars.h"

#include <fmt/format.h>

namespace moue {
namespace {

void add(std::vector<Scalar>& scalars, std::string_view tag, double value) {
  Scalar& scalar = scalars.emplace_back();
  scalar.tag = tag;
  scalar.value = value;
}

void add_layers(std::vector<Scalar>& scalars, const char* group,
                const std::vector<double>& values) {
  for (size_t layer = 0; layer < values.size(); ++layer)
    add(scalars, fmt::format("{}/layer_{:02}", group, layer), values[layer]);
}

// What a layer of every number of single tokens is called.
void add_routing(std::vector<Scalar>& scalars, const RoutingReport& routing) {
  add(scalars, "routing/distinct_experts", routing.distinct);
  add(scalars, "routing/utilisation", routing.utilisation);
  add_layers(scalars, "foreign_share", routing.foreign);
  add_layers(scalars, "entropy_nats", routing.entropy);
  add_layers(scalars, "margin", routing.margin);
  add_layers(scalars, "trajectory_bonus", routing.bonus);
  add_layers(scalars, "logit_spread", routing.spread);
  add_layers(scalars, "reuse_with_next", routing.reuse);
  add_layers(scalars, "reuse_with_next_by_chance", routing.reuse_chance);
}

}  // namespace

std::vector<Scalar> scalars_of(const StepRecord& record) {
  std::vector<Scalar> scalars = {{"loss/train", record.loss},
                                 {"loss/train_mean", record.mean_loss},
                                 {"optimizer/lr", record.lr},
                                 {"optimizer/gradient_norm", record.grad_norm},
                                 {"optimizer/skipped", record.skipped ? 1.0 : 0.0},
                                 {"run/tokens_per_second", record.tokens_per_second},
                                 {"run/epochs", record.epochs},
                                 {"balance/alpha", record.alpha},
                                 {"balance/pool", record.balance.pool},
                                 {"balance/layer", record.balance.layer},
                                 {"balance/pool_max_vio", record.load.pool_max_vio},
                                 {"balance/dead_experts", static_cast<double>(record.load.dead)},
                                 {"routing/foreign_share", record.load.foreign_share}};
  add_layers(scalars, "max_vio", record.load.max_vio);
  if (record.routing) add_routing(scalars, *record.routing);
  return scalars;
}

std::vector<Scalar> scalars_of(const HeldOut& held_out) {
  std::vector<Scalar> scalars = {{"loss/held_out", held_out.loss},
                                 {"routing/held_out_foreign_share", held_out.foreign_share}};
  if (held_out.average) add(scalars, "loss/held_out_ema", *held_out.average);
  if (held_out.all_open) add(scalars, "loss/held_out_all_open", *held_out.all_open);
  return scalars;
}

}  // namespace moue
