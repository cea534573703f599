// ModelSpec: how a family computes, as plain data. The model has one file per kind; nothing else
// knows families.
#pragma once

#include <cstdint>
#include <vector>

namespace moue {

enum class NormKind : uint8_t { Rms };
enum class AttentionKind : uint8_t { Grouped };  ///< grouped-query softmax attention
enum class QkNorm : uint8_t { None, PerHead };  ///< RMSNorm of each query and key head, before rope
enum class RopeKind : uint8_t { Default };      ///< rotation of halves ("neox")
enum class Activation : uint8_t { Silu };       ///< silu(gate) * up
enum class RouterScore : uint8_t { Softmax };   ///< float32 softmax over all experts, top-k of it

struct NormSpec {
  NormKind kind = NormKind::Rms;
  double eps = 1e-5;
};

struct RopeSpec {
  RopeKind kind = RopeKind::Default;
  double theta = 10000.0;
  int64_t width = 0;  ///< rotated channels of a head
};

struct AttentionSpec {
  AttentionKind kind = AttentionKind::Grouped;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_width = 0;
  double scale = 0;  ///< multiplies q.k; 1/sqrt(head_width) for most
  QkNorm qk_norm = QkNorm::None;
  bool bias = false;         ///< q, k, v have biases
  bool output_bias = false;  ///< o has a bias
  std::vector<int64_t>
      window;  ///< per layer: how many positions a token sees, itself included; 0 = all
};

struct RouterSpec {
  RouterScore score = RouterScore::Softmax;
  bool renormalise = true;  ///< gates of the chosen sum to one
  double aux_coefficient = 0;
};

struct ModelSpec {
  int64_t vocabulary = 0;  ///< V
  int64_t width = 0;       ///< D
  int64_t layers = 0;
  int64_t dense_width = 0;        ///< width of the FFN in layers that are not routed
  int64_t expert_width = 0;       ///< F
  int64_t experts = 0;            ///< N, routed, per MoE layer
  int64_t experts_per_token = 0;  ///< K
  std::vector<bool> moe;          ///< per layer: is it routed
  bool tied_head = false;
  NormSpec norm;
  RopeSpec rope;
  AttentionSpec attention;
  RouterSpec router;
  Activation activation = Activation::Silu;

  int64_t num_moe_layers() const;
  std::vector<int64_t> moe_layers() const;  ///< index of each MoE layer among all layers
};

}  // namespace moue
