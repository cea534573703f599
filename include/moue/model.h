// Model: a MoE or MoUE in LibTorch, the same code on CPU and CUDA. The one public header that names
// torch types.
//
// Legend: T tokens (B x length), V vocabulary, D width, F expert width, N experts of a layer, S
// slots of a layer, K experts per token, P physical experts, L MoE layers.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/pool.h"

namespace moue {

struct ModelOptions {
  at::ScalarType dtype = at::kFloat;  ///< arithmetic: kFloat or kBFloat16
  at::Device device = at::kCPU;
  uint64_t memory =
      0;  ///< bytes of weights held at a time, fetched on demand; 0 = everything resident
  bool train = false;   ///< parameters get gradients and float32 masters; needs memory = 0
  bool masters = true;  ///< with train; false: the values themselves are trained
  /// Tensors on disk that never move: no gradient, no master. Unset = none.
  std::function<bool(const std::string& tensor)> frozen = {};
  /// May name a tensor that holds the same numbers as what was `loaded` for a parameter, to be held
  /// in its place; undefined = none. Unset = none.
  std::function<at::Tensor(const std::string& parameter, const at::Tensor& loaded)> shared = {};
};

/// A contiguous piece of a parameter and where it lies on disk.
struct DiskTensor {
  std::string name;
  int64_t offset = 0;  ///< in elements of the parameter
  std::vector<int64_t> shape;
  Dtype dtype = Dtype::F32;  ///< as the source stores it
  Slice slice = {};          ///< rows times columns are the elements of shape
};

enum class ParameterKind : uint8_t {
  Matrix,       ///< embedding, head, attention, dense FFN, home router: weight decay
  Norm,         ///< gains and biases of the base model: no decay
  Expert,       ///< [P, ...] stacks: weight decay
  ExpertBias,   ///< [P, ...] stacks: no decay
  ForeignRow,   ///< [s_l - N, D]: decay only where the slot is open
  RouterBias,   ///< beta
  RouterScale,  ///< a
  Gain,         ///< gamma
  Trajectory,   ///< key, query, decay_logit
};

/// Elements [begin, end) of a parameter.
struct ElementRange {
  int64_t begin = 0;
  int64_t end = 0;
};

struct Parameter {
  std::string name;  ///< unique: the first disk tensor's name for single tensors, else a stem
  ParameterKind kind = ParameterKind::Matrix;
  int64_t moe_layer = -1;  ///< of router tensors
  at::Tensor value;        ///< arithmetic dtype (new tensors: float32)
  /// float32; the same storage as value where that is float32. Only with train; undefined where
  /// value holds less and all is frozen, or no masters were asked for.
  at::Tensor master;
  /// float32, accumulated over micro-batches: of what is not frozen, side by side (in the shape of
  /// value where nothing is). Only with train, and while the parameter moves.
  at::Tensor grad;
  std::vector<ElementRange> frozen;  ///< what never moves: all, or whole experts of a stack
  std::vector<DiskTensor> disk;      ///< cover the parameter exactly, in order
};

/// What an optimizer moves, and a checkpoint keeps: the master where there is one, else the value.
const at::Tensor& weights_of(const Parameter& parameter);
/// The elements that are not frozen, in order.
std::vector<ElementRange> trained(const Parameter& parameter);
int64_t num_trained(const Parameter& parameter);
/// The shape of the gradient: value's, or fewer rows of it.
std::vector<int64_t> trained_shape(const Parameter& parameter);

/// What one router did in a forward pass.
struct Routed {
  at::Tensor chosen_TK;      ///< int32, slots; best first
  at::Tensor gate_TK;        ///< float32, without the output scale a
  at::Tensor count_S;        ///< int64, how often each slot was chosen
  at::Tensor probability_S;  ///< float64, sum over tokens of each open slot's share of the scores
                             ///< (softmax of z, or sigmoids over their sum; without pool bias)
  at::Tensor z_TS;  ///< float32 logits with every term but the pool bias; -inf where closed
  /// float32 trajectory bonus, a term of z: for observers alone; undefined without a state.
  at::Tensor bonus_TS;
};

/// What a MoE layer computed, for measuring. Tensors are valid during the call.
struct MoeView {
  int64_t moe_layer = 0;
  at::Tensor xhat_TD;  ///< normalised block input before the gain
  at::Tensor u_TD;     ///< router input
  const Routed* routed = nullptr;
};

class Model;

/// Distillation: the loss is (1 - share) cross-entropy + share t^2 KL(p || q), where p and q are
/// the softmax of the teacher's and the model's logits over t.
struct Distill {
  Model* teacher = nullptr;  ///< of the same vocabulary, arithmetic and device; null = none
  double share = 0;
  double temperature = 1;  ///< t
};

/// One pass through the model: settings in, records out.
struct Pass {
  bool detach_trajectory = false;  ///< the gate inside the trajectory state is a constant
  bool keep_records = true;        ///< fill `routed`
  /// Balance loss: dL/dz[t,s] += balance_scale * prob[t,s] * (v[s] - sum_j prob[t,j] v[j]), where
  /// scores are sigmoids times 1 - score; one float32 [S] tensor per MoE layer; read during
  /// backward, so it may be set between forward and backward. Empty = none.
  std::shared_ptr<std::vector<at::Tensor>> balance_v;
  double balance_scale = 0;
  double z_scale = 0;      ///< router z-loss: dL/dz[t,s] += 2 z_scale lse_t prob[t,s]
  bool recompute = false;  ///< blocks keep their input alone and run again on the way back
  Distill distill;         ///< read by loss()
  std::function<void(const MoeView&)> observer;
  /// Called with the input [T, D] of each layer, then with the normalised output, layer = layers.
  std::function<void(int64_t layer, const at::Tensor& hidden_TD)> hidden_observer;

  std::vector<Routed> routed;  ///< per MoE layer
  at::Tensor token_loss;       ///< float32 [T] cross-entropy, 0 where not counted (after loss())
  at::Tensor loss_sum;         ///< float64 scalar, its sum
  at::Tensor divergence_sum;   ///< float64 scalar, sum of t^2 KL(p || q); undefined without teacher
  int64_t num_targets = 0;
};

class Model {
 public:
  /// Claims the checkpoint and loads it. Throws Error for what does not fit.
  static std::unique_ptr<Model> open(const Checkpoint& checkpoint, const ModelOptions& options);
  virtual ~Model() = default;

  virtual const ModelSpec& spec() const = 0;
  virtual const Pool& pool() const = 0;  ///< vanilla for an ordinary MoE
  virtual bool is_moue() const = 0;

  /// Logits of tokens_BT (int64 [B, length]): [B, length, V] in the arithmetic dtype.
  virtual at::Tensor logits(const at::Tensor& tokens_BT, Pass& pass) = 0;

  /// Summed cross-entropy of rows_BT1 (int64 [B, length + 1]) times `scale`, as a differentiable
  /// scalar (chunked: logits are never held whole), mixed with pass.distill where that is set.
  /// mask_BT (bool, may be undefined) says which targets count. In training call backward() on the
  /// result; gradients are then added by finish_backward().
  virtual at::Tensor loss(const at::Tensor& rows_BT1, const at::Tensor& mask_BT, double scale,
                          Pass& pass) = 0;
  /// Moves the gradients autograd left on the values into the float32 grads.
  virtual void finish_backward() = 0;

  virtual void set_visibility(const Visibility& visibility) = 0;  ///< home slots must be 1
  virtual const Visibility& visibility() const = 0;
  virtual at::Tensor
  pool_bias() = 0;  ///< float32 [P], selection only; written in place by the caller
  /// The family's selection bias of a MoE layer's slots: float32 [S], the foreign part written in
  /// place by the caller; undefined where the family has none.
  virtual at::Tensor correction(int64_t moe_layer) = 0;

  virtual std::vector<Parameter>& parameters() = 0;  ///< in the order of the checkpoint's layers
  virtual void zero_grad() = 0;
  /// Chooses which parameters get gradients from now on (all do at first); the others' go, and with
  /// them the work of making them.
  virtual void set_moving(const std::function<bool(const Parameter&)>& moves) = 0;
  /// Copies masters to values after an optimizer step (nothing to do in float32).
  virtual void refresh_values() = 0;

  /// Unweighted outputs of the chosen experts: [T, K, D] float32; for measuring (inside an
  /// observer).
  virtual at::Tensor expert_outputs(const MoeView& view) = 0;
  /// The router row of physical expert p in its home layer: [D] float32.
  virtual at::Tensor home_router_row(int64_t physical) = 0;
  /// The router's bias of physical expert p in its home layer; 0 where the family has none.
  virtual double home_router_bias(int64_t physical) = 0;
  /// Lets another physical expert, its output times `scale`, answer in a slot of an ordinary model;
  /// for measuring.
  virtual void set_slot(int64_t moe_layer, int64_t slot, int64_t physical, double scale) = 0;
};

/// "float32" | "bfloat16". Throws Error naming the word.
at::ScalarType scalar_type(const std::string& dtype);
/// What a stored tensor computes as. Throws Error naming the tensor where it is no float type.
at::ScalarType scalar_type(Dtype dtype, const std::string& tensor);
/// "cpu" | "cuda". Throws Error where LibTorch sees no such device.
at::Device device_of(const std::string& device);
/// 0 = all cores.
void set_threads(int64_t threads);

struct Evaluation {
  double loss = 0;            ///< mean cross-entropy, no auxiliary terms
  double standard_error = 0;  ///< over windows
  int64_t tokens = 0;         ///< that count
  double foreign_share = 0;   ///< of all choices
};
/// Held-out loss over windows [n, length + 1] of int64, batch windows a pass; of the targets that
/// `mask_NT` (bool, may be undefined) counts.
Evaluation evaluate(Model& model, const at::Tensor& windows_NT1, int64_t batch,
                    const at::Tensor& mask_NT = {});

}  // namespace moue
