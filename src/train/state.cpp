// What a run must remember between two processes: JSON for words and numbers, safetensors for rows
// of numbers.
#include "train/state.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

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

std::string previous_name(size_t layer) { return fmt::format("previous.{}", layer); }

Json json_of(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

std::optional<double> optional_of(const Json& json, const char* key) {
  return json.at(key).is_null() ? std::nullopt : std::optional(json.at(key).get<double>());
}

// The fields of state.json; nlohmann's own exceptions name key and kind.
TrainState state_of(const Json& json) {
  TrainState state;
  state.step = json.at("step").get<int64_t>();
  state.data_step = json.at("data_step").get<int64_t>();
  state.opening = json.at("opening").get<bool>();
  state.skips.total = json.at("skipped").get<int64_t>();
  state.skips.in_a_row = json.at("skipped_in_a_row").get<int64_t>();
  state.losses = json.at("losses").get<std::vector<double>>();
  state.held_out_first = optional_of(json, "held_out_first");
  state.held_out_best = optional_of(json, "held_out_best");
  state.fixed = json.at("options").get<Fixed>();
  if (state.step < 0 || state.data_step < 0) throw std::runtime_error("a negative step");
  return state;
}

}  // namespace

void TrainState::add_loss(double loss) {
  if (!std::isfinite(loss)) return;
  losses.push_back(loss);
  if (losses.size() > kLossWindow) losses.erase(losses.begin());
}

double TrainState::mean_loss() const {
  if (losses.empty()) return std::numeric_limits<double>::quiet_NaN();
  return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
}

void write_state(const TrainState& state, const std::vector<Optimizer::Moments>& moments,
                 const std::filesystem::path& directory) {
  const Json json = {{"step", state.step},
                     {"data_step", state.data_step},
                     {"opening", state.opening},
                     {"skipped", state.skips.total},
                     {"skipped_in_a_row", state.skips.in_a_row},
                     {"losses", state.losses},
                     {"held_out_first", json_of(state.held_out_first)},
                     {"held_out_best", json_of(state.held_out_best)},
                     {"options", state.fixed}};
  write_file_whole(directory / kStateJson, json.dump(1) + "\n");

  std::vector<int64_t> updates;
  for (const Optimizer::Moments& moment : moments) updates.push_back(moment.updates);
  std::vector<TensorView> views = {
      {"updates", Dtype::I64, {static_cast<int64_t>(updates.size())}, bytes_of(updates)}};
  for (size_t layer = 0; layer < state.previous.size(); ++layer) {
    const std::vector<double>& f = state.previous[layer];
    views.push_back(
        {previous_name(layer), Dtype::F64, {static_cast<int64_t>(f.size())}, bytes_of(f)});
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
  if (tensors.find(previous_name(0)) == nullptr) return state;
  for (size_t layer = 0; layer < slots.size(); ++layer) {
    state.previous.push_back(tensors.values(previous_name(layer)));
    if (state.previous.back().size() == slots[layer].size()) continue;
    fail("train", "{}: {} has {} slots, the model {}; is it this model's?", tensors.path().string(),
         previous_name(layer), state.previous.back().size(), slots[layer].size());
  }
  return state;
}

}  // namespace moue
