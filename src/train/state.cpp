// What a run must remember between two processes: JSON for words and numbers, safetensors for rows
// of numbers.
#include "train/state.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <nlohmann/json.hpp>

#include "core/files.h"
#include "core/json.h"
#include "moue/error.h"
#include "moue/safetensors.h"

namespace moue {
namespace {

using Json = nlohmann::ordered_json;

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

// What is kept as a number per slot, by its name in state.safetensors.
template <class State>
auto rows_of(State& state) {
  return std::array{std::pair{"previous", &state.previous}, std::pair{"shares", &state.shares},
                    std::pair{"kept", &state.kept}};
}

PerSlot read_rows(const SafetensorsFile& tensors, const char* stem, const Slots& slots) {
  PerSlot rows;
  for (size_t layer = 0; layer < slots.size(); ++layer) {
    const std::string name = fmt::format("{}.{}", stem, layer);
    rows.push_back(tensors.values(name));
    if (rows.back().size() == slots[layer].size()) continue;
    fail("train", "{}: {} has {} slots, the model {}; is it this model's?", tensors.path().string(),
         name, rows.back().size(), slots[layer].size());
  }
  return rows;
}

Json json_of(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

std::optional<double> optional_of(const Json& json, const char* key) {
  return json.at(key).is_null() ? std::nullopt : std::optional(json.at(key).get<double>());
}

// For the reader: a resumed run derives them from its options again.
Json stages_of(const TrainState& state) {
  Json stages = Json::array();
  for (const StagePlan& stage : state.stages)
    stages.push_back({{"stage", stage.name}, {"from", stage.from}, {"until", stage.until}});
  return stages;
}

// The fields of state.json; nlohmann's own exceptions name key and kind.
TrainState state_of(const Json& json) {
  TrainState state;
  state.step = json.at("step").get<int64_t>();
  state.data_step = json.at("data_step").get<int64_t>();
  state.opening = json.at("opening").get<bool>();
  state.skips.total = json.at("skipped").get<int64_t>();
  state.skips.in_a_row = json.at("skipped_in_a_row").get<int64_t>();
  state.skips.spikes = json.at("spikes").get<int64_t>();
  state.losses.values = json.at("losses").get<std::vector<double>>();
  state.norms.values = json.at("gradient_norms").get<std::vector<double>>();
  state.num_moving = json.at("num_moving").get<int64_t>();
  state.held_out_first = optional_of(json, "held_out_first");
  state.held_out_best = optional_of(json, "held_out_best");
  state.fixed = json.at("options").get<Fixed>();
  if (state.step < 0 || state.data_step < 0) throw std::runtime_error("a negative step");
  return state;
}

}  // namespace

void write_state(const TrainState& state, const std::vector<Optimizer::Moments>& moments,
                 const std::filesystem::path& directory) {
  const Json json = {{"step", state.step},
                     {"data_step", state.data_step},
                     {"opening", state.opening},
                     {"skipped", state.skips.total},
                     {"skipped_in_a_row", state.skips.in_a_row},
                     {"spikes", state.skips.spikes},
                     {"losses", state.losses.values},
                     {"gradient_norms", state.norms.values},
                     {"num_moving", state.num_moving},
                     {"held_out_first", json_of(state.held_out_first)},
                     {"held_out_best", json_of(state.held_out_best)},
                     {"stages", stages_of(state)},
                     {"options", state.fixed}};
  write_file_whole(directory / kStateJson, json.dump(1) + "\n");

  std::vector<int64_t> updates;
  for (const Optimizer::Moments& moment : moments) updates.push_back(moment.updates);
  std::vector<TensorView> views = {
      {"updates", Dtype::I64, {static_cast<int64_t>(updates.size())}, bytes_of(updates)}};
  for (const auto& [name, rows] : rows_of(state)) {
    for (size_t layer = 0; layer < rows->size(); ++layer) {
      const std::vector<double>& row = (*rows)[layer];
      views.push_back({fmt::format("{}.{}", name, layer),
                       Dtype::F64,
                       {static_cast<int64_t>(row.size())},
                       bytes_of(row)});
    }
  }
  write_safetensors(directory / kStateTensors, views);
}

TrainState read_state(const std::filesystem::path& directory, const Slots& slots,
                      std::vector<Optimizer::Moments>& moments) {
  const std::filesystem::path file = directory / kStateJson;
  const Json json = read_json(file, "train");
  TrainState state;
  try {
    state = state_of(json);
  } catch (const std::exception& error) {
    fail("train", "{} is not the state of a run ({}); resume from an older step", file.string(),
         error.what());
  }
  const SafetensorsFile tensors(directory / kStateTensors);
  const std::vector<double> updates = tensors.values("updates");
  if (updates.size() != moments.size()) {
    fail("train", "{}: updates has {} entries, the model {} parameters; is it this model's?",
         tensors.path().string(), updates.size(), moments.size());
  }
  for (size_t i = 0; i < updates.size(); ++i) moments[i].updates = static_cast<int64_t>(updates[i]);
  for (const auto& [name, rows] : rows_of(state)) {
    if (tensors.find(fmt::format("{}.0", name)) != nullptr) *rows = read_rows(tensors, name, slots);
  }
  return state;
}

}  // namespace moue
