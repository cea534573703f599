// Pool: slot lists, homes, names on disk, the "moue" block of config.json. See docs/method.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "moue/config.h"
#include "moue/family.h"
#include "moue/safetensors.h"
#include "moue/spec.h"

namespace moue {

class Checkpoint;

inline constexpr int64_t kMaxSlots = 4096;    ///< of a layer: what the kernels hold
inline constexpr int64_t kMaxStateDim = 256;  ///< of the trajectory state

enum class Boundary : uint8_t { Ring, Clamp };
enum class Mode : uint8_t {
  Reuse,   ///< the source's experts themselves are shared
  Expand,  ///< copies of some of them are added, and only these are shared
};
enum class ForeignInput : uint8_t { Home, Layer };  ///< through whose norm a foreign expert is fed
enum class PoolState : uint8_t { Closed, Opened, Trained, Relocked };

std::string_view to_string(Boundary);
std::string_view to_string(Mode);
std::string_view to_string(ForeignInput);
std::string_view to_string(PoolState);
PoolState pool_state(std::string_view name);  ///< throws Error listing the states
Boundary boundary_of(std::string_view name);
Mode mode_of(std::string_view name);
ForeignInput foreign_input_of(std::string_view name);

/// Parameters of the staggered rotational topology (this project's definition). In `expand` the
/// ring holds the new experts alone.
struct Topology {
  std::string name;     ///< "half_staggered", ..., or "custom"
  int64_t layers = 0;   ///< L, MoE layers
  int64_t experts = 0;  ///< N, per layer
  int64_t group = 1;    ///< g, layers that share one window
  int64_t shift = 0;    ///< rho, how far the window moves from one group to the next
  int64_t window = 0;   ///< w, experts of the ring that a window shows
  int64_t stride = 1;   ///< delta, distance between two experts of a window
  int64_t origin = 0;   ///< o0, where the first window starts
  Boundary boundary = Boundary::Clamp;
  int64_t ring = 0;   ///< M, positions of the ring; 0 = all L N experts (reuse)
  int64_t reach = 0;  ///< "similarity": how many MoE layers away a donor may be
};

struct Home {
  int32_t layer = 0;   ///< MoE layer, counted from 0
  int32_t expert = 0;  ///< in that layer
  bool operator==(const Home&) const = default;
};

/// pi_l: the physical expert of every slot of MoE layer l.
using Slots = std::vector<std::vector<int32_t>>;

struct Pool {
  std::string base_model_type;
  std::vector<std::string> base_architectures;
  Mode mode = Mode::Reuse;
  std::vector<int64_t> moe_layers;  ///< source index of each MoE layer
  int64_t experts_per_layer = 0;    ///< N
  std::vector<Home> home;           ///< of every physical expert; a new one's is its donor
  Slots slots;                      ///< own experts first, in source order
  Topology topology;                ///< the parameters that made the slots, for the reader
  int64_t state_dim = 0;
  ForeignInput foreign_input = ForeignInput::Home;
  PoolState state = PoolState::Closed;
  bool calibrated = false;  ///< beta and a were measured, not left at their start

  int64_t num_moe_layers() const { return static_cast<int64_t>(slots.size()); }
  int64_t num_physical() const { return static_cast<int64_t>(home.size()); }
  /// L N: the source's experts, which come first.
  int64_t num_source() const { return num_moe_layers() * experts_per_layer; }
  /// M: copies that `expand` adds behind them.
  int64_t num_new() const { return num_physical() - num_source(); }
  bool is_own(int64_t layer, int64_t physical) const {
    return physical / experts_per_layer == layer && layer < num_moe_layers();
  }
  int64_t num_foreign(int64_t layer) const {
    return static_cast<int64_t>(slots[layer].size()) - experts_per_layer;
  }
};

/// A pool in which each layer lists its own experts only: an ordinary MoE seen as a MoUE.
Pool vanilla_pool(const Config& source, const ModelSpec& spec);

bool is_moue(const Config& config);
/// Reads and checks the block. Throws Error "[pool] ..." for own experts not first, a repeated or
/// out-of-range expert, counts that disagree.
Pool read_pool(const Config& config);
/// The source's config with the block added and architectures, model_type set.
Config with_pool(const Config& source, const Pool& pool);
/// The source's config back: block removed, architectures and model_type as they were.
Config without_pool(const Config& config);

/// Checks slots and homes as read_pool does; all faults at once.
void check_pool(const Pool& pool, int64_t experts_per_token);

/// Checks that block and spec agree, and that exactly the tensors of pool_tensors are there, in
/// float32, with their shapes. Throws Error listing all that is missing, unknown or of another
/// shape.
void check_pool_fits(const Pool& pool, const ModelSpec& spec, const Checkpoint& checkpoint);

/// Names and float32 shapes of the new tensors, in the order they are written.
struct PoolTensor {
  std::string name;
  std::vector<int64_t> shape;
};
std::vector<PoolTensor> pool_tensors(const Pool& pool, const ModelSpec& spec);
bool is_pool_tensor(std::string_view name);  ///< starts with "moue."

/// A tensor of new expert j (physical expert L N + j), in the source's dtype.
struct ExpertTensor {
  Role role;
  std::string name;
  std::vector<int64_t> shape;
};
/// gate [F, D], up [F, D], down [D, F], and their biases where the family has them.
std::vector<ExpertTensor> expert_tensors(int64_t j, const ModelSpec& spec);
bool is_expert_tensor(std::string_view name);  ///< starts with "moue.experts."

namespace names {
std::string router_weight(int64_t layer);      ///< [s_l - N, D] foreign rows
std::string router_bias(int64_t layer);        ///< [s_l - N] beta
std::string router_scale(int64_t layer);       ///< [s_l - N] a
std::string router_visibility(int64_t layer);  ///< [s_l - N] m
/// [s_l - N] c, in families with a correction bias alone
std::string router_correction(int64_t layer);
std::string trajectory_gain(int64_t layer);                           ///< [state_dim] gamma
inline constexpr const char* kKey = "moue.trajectory.key";            ///< [P, state_dim]
inline constexpr const char* kQuery = "moue.trajectory.query";        ///< [P, state_dim]
inline constexpr const char* kDecay = "moue.trajectory.decay_logit";  ///< [state_dim]
inline constexpr const char* kPoolBias = "moue.pool_bias";            ///< [P] b
}  // namespace names

/// Visibility of every slot of every layer, home slots 1. Same shape as Slots.
using Visibility = std::vector<std::vector<double>>;
Visibility closed_visibility(const Pool& pool);
Visibility open_visibility(const Pool& pool);

/// Connected component of each layer in the graph of layers and the experts they list (the lowest
/// layer names it).
std::vector<int64_t> components(const Slots& slots);
/// How many layers list each physical expert: c_p.
std::vector<int64_t> sharing(const Slots& slots, int64_t num_physical);
/// Exposure x_p = sum_l m_{l,p} / n_l (project definition); sums to L.
std::vector<double> exposure(const Visibility& visibility, const Slots& slots,
                             int64_t num_physical);
/// Target share q_p: per component (L_A / L) x_p^kappa / sum of the component's x^kappa over x > 0;
/// 0 elsewhere.
std::vector<double> target_share(const std::vector<double>& exposure, const Slots& slots,
                                 double kappa);

}  // namespace moue
