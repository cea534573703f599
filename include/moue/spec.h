// ModelSpec: how a family computes, as plain data. The model has one file per kind; nothing else
// knows families.
#pragma once

#include <cstdint>
#include <vector>

namespace moue {

enum class NormKind : uint8_t {
  Rms,
  Layer,  ///< subtracts the mean; with a bias where NormSpec says so
};
enum class AttentionKind : uint8_t {
  Grouped,  ///< grouped-query softmax attention
  Latent,   ///< multi-head latent attention (DeepSeek-V2, arXiv 2405.04434)
  Linear,   ///< lightning attention (MiniMax-01, arXiv 2501.08313)
  Experts,  ///< K parallel attentions, whose query and output projections are routed (JetMoE)
};
enum class QkNorm : uint8_t {
  None,
  PerHead,  ///< RMSNorm of each query and key head, before rope
  Whole,    ///< RMSNorm of the whole query and key vectors, before they are cut into heads
};
enum class RopeKind : uint8_t { Default, Linear, Yarn, Long, Llama3 };
enum class Activation : uint8_t {
  Silu,     ///< silu(gate) * up
  Clamped,  ///< (clamp(up) + 1) * gate * sigmoid(1.702 gate), gate and up limited (gpt-oss)
};
enum class RouterScore : uint8_t {
  Softmax,  ///< over all slots, before the choice
  Sigmoid,  ///< of each slot by itself
  Chosen,   ///< softmax over the chosen slots alone
  Sparse,   ///< SparseMixer: one pass per choice, softmax over those near its best (phi-3.5 MoE)
};
enum class GroupScore : uint8_t { Best, SumOfTwo };  ///< what a group of experts is judged by

struct NormSpec {
  NormKind kind = NormKind::Rms;
  double eps = 1e-5;
  double final_eps = 0;  ///< of the last norm; 0 = eps (JetMoE's layers do not read the config's)
  double inner_eps = 1e-6;  ///< of the norms inside latent and linear attention
  bool bias = false;
  bool gain_in_float32 = false;  ///< the gain multiplies before xhat is rounded (gpt-oss)
};

struct RopeSpec {
  RopeKind kind = RopeKind::Default;
  double theta = 10000.0;
  int64_t width = 0;         ///< rotated channels of a head, the first ones
  bool interleaved = false;  ///< pairs (0, 1), (2, 3)... instead of halves
  double factor = 1;
  int64_t original_length = 0;                   ///< positions the model was first trained on
  double attention_factor = 1;                   ///< multiplies cosine and sine
  double long_attention_factor = 1;              ///< the same beyond original_length (Long)
  double beta_fast = 32, beta_slow = 1;          ///< Yarn
  bool truncate = true;                          ///< Yarn: bounds of the ramp are rounded
  double low_frequency = 1, high_frequency = 4;  ///< Llama3
  std::vector<double> short_factors = {}, long_factors = {};  ///< Long: [width / 2] each
};

/// Widths of latent attention.
struct LatentSpec {
  int64_t query_rank = 0;   ///< 0 = queries are projected directly
  int64_t rank = 0;         ///< of keys and values
  int64_t plain_width = 0;  ///< channels of a query and key head without rope
  int64_t rope_width = 0;   ///< channels with rope; the keys' are shared by all heads
  int64_t value_width = 0;  ///< of a head
};

struct AttentionSpec {
  std::vector<AttentionKind> kinds;  ///< per layer; empty = Grouped everywhere
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_width = 0;
  double scale = 0;  ///< multiplies q.k; 1/sqrt(head_width) for most
  QkNorm qk_norm = QkNorm::None;
  bool bias = false;         ///< q, k, v have biases
  bool output_bias = false;  ///< o has a bias
  bool sinks = false;        ///< a learned logit per head joins the softmax and is dropped
  double clip = 0;           ///< q, k, v are limited to +-clip after the projection; 0 = not
  std::vector<int64_t>
      window;  ///< per layer: how many positions a token sees, itself included; 0 = all
  LatentSpec latent;
  int64_t block = 256;  ///< Linear: positions computed together

  AttentionKind kind(int64_t layer) const {
    return kinds.empty() ? AttentionKind::Grouped : kinds[layer];
  }
};

struct RouterSpec {
  RouterScore score = RouterScore::Softmax;
  bool renormalise = true;  ///< gates of the chosen are divided by their norm
  double norm_power = 1;    ///< p of that norm: (sum gate^p)^(1/p)
  double norm_eps = 0;      ///< added to it
  double scale = 1;         ///< multiplies the gates at the very end
  bool bias = false;        ///< added to the logits
  bool correction = false;  ///< a bias of the choice alone, added to the score
  int64_t groups = 1;       ///< experts are chosen within the best groups only
  int64_t kept_groups = 1;
  GroupScore group_score = GroupScore::Best;
  bool float32_logits = false;         ///< the product is done in float32
  bool score_in_logits_dtype = false;  ///< scores and gates are rounded to the logits' dtype
  bool gates_in_logits_dtype = false;  ///< gates alone are
  double jitter = 0;  ///< Sparse: half the relative distance that still counts as near
  double aux_coefficient = 0;
};

/// Constants between the blocks.
struct ScaleSpec {
  double embedding = 1;  ///< multiplies embeddings
  double residual = 1;   ///< multiplies what a block adds
  double logits = 1;     ///< divides logits
  /// MiniMax: the residual is taken after the norm, out = alpha norm(x) + beta f(norm(x)).
  bool after_norm = false;
  double full_alpha = 1, full_beta = 1;      ///< softmax attention
  double linear_alpha = 1, linear_beta = 1;  ///< linear attention
  double mlp_alpha = 1, mlp_beta = 1;
};

struct ModelSpec {
  int64_t vocabulary = 0;  ///< V
  int64_t width = 0;       ///< D
  int64_t layers = 0;
  int64_t extra_layers = 0;  ///< after those, for predicting further tokens: kept, not computed
  int64_t dense_width = 0;   ///< width of the FFN in layers that are not routed
  int64_t expert_width = 0;  ///< F
  int64_t shared_width = 0;  ///< of the expert every token takes in routed layers; 0 = none
  bool shared_gate = false;  ///< its output is multiplied by sigmoid(w.u)
  int64_t experts = 0;       ///< N, routed, per MoE layer
  int64_t experts_per_token = 0;  ///< K
  std::vector<bool> moe;          ///< per layer: is it routed
  bool tied_head = false;
  bool head_bias = false;
  bool expert_bias = false;  ///< of each expert's gate, up and down
  bool mlp_bias = false;     ///< of the whole routed block, added after the mix
  NormSpec norm;
  RopeSpec rope;
  AttentionSpec attention;
  RouterSpec router;
  ScaleSpec scales;
  Activation activation = Activation::Silu;
  double activation_alpha = 1.702, activation_limit = 7;  ///< Clamped

  int64_t num_moe_layers() const;
  std::vector<int64_t> moe_layers() const;  ///< index of each MoE layer among all layers
};

}  // namespace moue
