// What the files in converters/ share: rows that many families have, and reading config.json.
#pragma once

#include <initializer_list>

#include "moue/config.h"
#include "moue/family.h"

namespace moue::converters {

using Rows = std::vector<Row>;
Rows joined(std::initializer_list<Rows> parts);

// Rows of llama-style families, all under "model.".
Rows skeleton_rows();                ///< embedding, head, norms
Rows norm_bias_rows();               ///< of those norms and of the head
Rows rotary_rows();                  ///< buffers that old releases wrote
Rows attention_rows();               ///< q, k, v, o and, where the spec has them, their biases
Rows head_norm_rows();               ///< of each query and key head
Rows vector_norm_rows();             ///< of all heads together
Rows latent_rows();                  ///< attention of DeepSeek-V2 and later
Rows dense_rows();                   ///< feed-forward of layers that are not routed
Rows shared_expert_rows();           ///< "mlp.shared_experts": one, as wide as all together
Rows mlp_router_rows();              ///< "mlp.gate"
Form block_experts(Rows more = {});  ///< "block_sparse_moe.experts.{E}.w1" and its router
Form mlp_experts(Rows more = {});    ///< "mlp.experts.{E}.gate_proj"
/// "mlp.experts.gate_up_proj", as transformers 5 has it in memory.
Form fused_experts(Rows more = {});

// Reading config.json. Each refuses, naming file, key and value, what no part of moue computes.
int64_t size(const Config& config, Config::Keys keys);  ///< 1 to 2^24
int64_t size(const Config& config, Config::Keys keys, int64_t fallback);
/// Layers that predict further tokens, under any name, 0 to 65536.
int64_t extra_layers(const Config& config, int64_t fallback);
/// Refuses another value; an absent key passes.
void must_be(const Config& config, std::string_view key, const char* wanted);
void must_be(const Config& config, std::string_view key, bool wanted);
void must_be(const Config& config, std::string_view key, double wanted);
double positive(const Config& config, Config::Keys keys, double fallback);

/// What a family's code assumes where its config is silent.
struct Assumed {
  double eps = 1e-6;
  double aux_coefficient = 0.001;
  bool tied_head = false;
};
/// All but widths of the feed-forward, attention, rope: every layer routed, softmax, renormalised.
ModelSpec common_spec(const Config& config, const Assumed& assumed = {});
/// The first layers are dense (first_k_dense_replace), the others routed, with shared experts.
void read_first_dense(const Config& config, ModelSpec& spec);
/// Routed is each decoder_sparse_step-th layer that mlp_only_layers does not list.
void read_sparse_steps(const Config& config, ModelSpec& spec);
/// Groups of experts: n_group and topk_group, else as the router has them; null = 1.
void read_groups(const Config& config, RouterSpec& router);
/// Sigmoid scores with a correction of the choice, from the best groups (DeepSeek-V3); scale and
/// groups as the router has them where the config is silent.
void read_corrected(const Config& config, RouterSpec& router);

AttentionSpec grouped_attention(const Config& config, const ModelSpec& spec);
AttentionSpec latent_attention(const Config& config, const ModelSpec& spec);
/// sliding_window, 0 where it is absent or null.
int64_t sliding_window(const Config& config);
/// Per layer whether layer_types gives it this type, and not full_attention; `assumed` where there
/// is no such list.
std::vector<bool> layers_of_type(const Config& config, std::string_view type,
                                 std::vector<bool> assumed);
/// The window in layers of the type sliding_attention.
std::vector<int64_t> windows(const Config& config, int64_t window, std::vector<bool> assumed);

/// The rotary embedding in the words of transformers 4 (rope_scaling) or 5 (rope_parameters).
RopeSpec rope(const Config& config, double default_theta, int64_t head_width);
/// The same for families that may rotate a part of each head: partial_rotary_factor or rotary_dim.
RopeSpec partial_rope(const Config& config, double default_theta, int64_t head_width,
                      double default_part = 1);
/// What DeepSeek multiplies q.k by beside 1/sqrt(width): the square of yarn's mscale_all_dim.
double latent_scale(const Config& config, const RopeSpec& rope);

/// The spec, unless its numbers contradict each other.
ModelSpec checked(const Config& config, ModelSpec spec);

}  // namespace moue::converters
