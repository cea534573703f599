// The model: embedding, layers, head; MoE blocks, attention and dense blocks have files of their
// own.
#include "moue/model.h"

#include <optional>

#include "model/attention.h"
#include "model/correction.h"
#include "model/dense.h"
#include "model/moe.h"
#include "model/norm.h"
#include "model/ops.h"
#include "model/recompute.h"
#include "model/torch.h"
#include "moue/error.h"

namespace moue {
namespace {

at::Tensor to_tensor(const std::vector<float>& values, const at::Device& device) {
  return at::tensor(values, at::kFloat).to(device);
}

class TorchModel : public Model {
 public:
  TorchModel(const Checkpoint& checkpoint, const Claims& claims, const ModelOptions& options)
      : is_moue_(moue::is_moue(checkpoint.config())),
        spec_(spec_of(checkpoint)),
        pool_(is_moue_ ? read_pool(checkpoint.config()) : vanilla_pool(checkpoint.config(), spec_)),
        options_(options),
        weights_(checkpoint, layout_of(checkpoint, claims), options) {
    context_.spec = &spec_;
    context_.pool = &pool_;
    context_.is_moue = is_moue_;
    context_.weights = &weights_;
    for (const auto& slots : pool_.slots) {
      const std::vector<int64_t> wide(slots.begin(), slots.end());
      context_.slot_index.push_back(at::tensor(wide, at::kLong).to(options.device));
    }
    load_state(checkpoint, claims);
  }

  const ModelSpec& spec() const override { return spec_; }
  const Pool& pool() const override { return pool_; }
  bool is_moue() const override { return is_moue_; }

  at::Tensor logits(const at::Tensor& tokens_BT, Pass& pass) override {
    const at::Tensor hidden = forward(tokens_BT, pass);
    return logits_of(hidden, head()).view({tokens_BT.size(0), tokens_BT.size(1), spec_.vocabulary});
  }

  at::Tensor loss(const at::Tensor& rows_BT1, const at::Tensor& mask_BT, double scale,
                  Pass& pass) override {
    const int64_t length = rows_BT1.size(1) - 1;
    const at::Tensor tokens = rows_BT1.narrow(1, 0, length);
    std::optional<Teaching> teaching = taught(tokens, pass.distill);  // before we hold activations
    const at::Tensor hidden = forward(tokens, pass);
    at::Tensor target = rows_BT1.narrow(1, 1, length).reshape({-1}).to(options_.device);
    if (mask_BT.defined())
      target = target.masked_fill(mask_BT.reshape({-1}).to(options_.device).logical_not(), -1);
    pass.num_targets = mask_BT.defined() ? mask_BT.sum().item<int64_t>() : target.numel();
    const at::Tensor loss = linear_cross_entropy(hidden, head(), target, scale, pass.token_loss,
                                                 teaching ? &*teaching : nullptr);
    pass.loss_sum = pass.token_loss.sum(at::kDouble);
    if (teaching) pass.divergence_sum = teaching->divergence.sum(at::kDouble);
    return z_loss_.defined() ? loss + z_loss_ : loss;
  }

  void set_visibility(const Visibility& visibility) override {
    context_.log_visibility.clear();
    for (size_t layer = 0; layer < visibility.size(); ++layer) {
      std::vector<float> values;
      for (size_t slot = 0; slot < visibility[layer].size(); ++slot) {
        const double m = visibility[layer][slot];
        TORCH_CHECK(slot >= static_cast<size_t>(pool_.experts_per_layer) || m == 1.0,
                    "home slots are always open");
        values.push_back(m == 1.0 ? 0.0f : static_cast<float>(std::log(m)));
      }
      context_.log_visibility.push_back(to_tensor(values, options_.device));
    }
    visibility_ = visibility;
  }
  const Visibility& visibility() const override { return visibility_; }
  at::Tensor pool_bias() override { return context_.pool_bias; }
  at::Tensor correction(int64_t moe_layer) override { return context_.correction[moe_layer]; }

  std::vector<Parameter>& parameters() override { return weights_.parameters(); }
  void zero_grad() override { weights_.zero_grad(); }
  void set_moving(const std::function<bool(const Parameter&)>& moves) override {
    weights_.set_moving(moves);
  }
  void finish_backward() override { weights_.finish_backward(); }
  void refresh_values() override { weights_.refresh_values(); }

  at::Tensor expert_outputs(const MoeView& view) override {
    const at::Tensor& chosen = view.routed->chosen_TK;
    const Permutation permutation = make_permutation(chosen, view.routed->count_S);
    const at::Tensor rows =
        expert_rows(view.xhat_TD, permutation, expert_table(view.moe_layer, context_));
    const at::Tensor order = permutation.row_of.reshape({-1}).to(at::kLong);
    return rows.index_select(0, order)
        .to(at::kFloat)
        .view({chosen.size(0), chosen.size(1), spec_.width});
  }

  at::Tensor home_router_row(int64_t physical) override {
    const Home home = pool_.home[physical];
    return weights_.get(Weight::Router, pool_.moe_layers[home.layer])
        .detach()
        .select(0, home.expert)
        .to(at::kFloat);
  }

  double home_router_bias(int64_t physical) override {
    const Home home = pool_.home[physical];
    const at::Tensor bias = weights_.get(Weight::HomeRouterBias, pool_.moe_layers[home.layer]);
    return bias.defined() ? bias[home.expert].item<double>() : 0;
  }

  void set_slot(int64_t moe_layer, int64_t slot, int64_t physical, double scale) override {
    TORCH_CHECK(!is_moue_, "a MoUE's slots are its own");
    pool_.slots[moe_layer][slot] = static_cast<int32_t>(physical);
    context_.output_scale[{moe_layer, slot}] = scale;
  }

 private:
  static ModelSpec spec_of(const Checkpoint& checkpoint) {
    return family_of(checkpoint.config()).spec(checkpoint.config());
  }

  WeightLayout layout_of(const Checkpoint& checkpoint, const Claims& claims) const {
    if (is_moue_) check_pool(pool_, spec_.experts_per_token);
    return make_layout(checkpoint, claims, spec_, pool_, is_moue_);
  }

  // Visibility, pool bias and correction are state, not parameters.
  void load_state(const Checkpoint& checkpoint, const Claims& claims) {
    Visibility visibility = closed_visibility(pool_);
    std::vector<float> bias(pool_.num_physical(), 0.0f);
    const auto floats = [&](const std::string& name) {
      const TensorInfo& tensor = checkpoint.at(name);
      std::vector<float> values(tensor.bytes / sizeof(float));
      checkpoint.read(tensor, 0, std::as_writable_bytes(std::span(values)));
      return values;
    };
    if (is_moue_) {
      for (int64_t layer = 0; layer < pool_.num_moe_layers(); ++layer) {
        const std::vector<float> m = floats(names::router_visibility(layer));
        for (size_t i = 0; i < m.size(); ++i) visibility[layer][pool_.experts_per_layer + i] = m[i];
      }
      bias = floats(names::kPoolBias);
    }
    context_.pool_bias = to_tensor(bias, options_.device);
    for (const at::Tensor& correction :
         read_corrections(checkpoint, claims, spec_, pool_, is_moue_))
      context_.correction.push_back(correction.defined() ? correction.to(options_.device)
                                                         : correction);
    set_visibility(visibility);
  }

  Head head() {
    const Weight weight = spec_.tied_head ? Weight::Embedding : Weight::Head;
    return {weights_.get(weight), weights_.get(Weight::HeadBias), weights_.grad(weight),
            weights_.grad(Weight::HeadBias), spec_.scales.logits};
  }

  // The teacher's last hidden states; TorchModel is the one Model there is.
  static std::optional<Teaching> taught(const at::Tensor& tokens_BT, const Distill& distill) {
    if (distill.teacher == nullptr) return std::nullopt;
    const at::NoGradGuard no_grad;
    auto& teacher = static_cast<TorchModel&>(*distill.teacher);
    Pass quiet;
    quiet.keep_records = false;
    return Teaching{
        teacher.forward(tokens_BT, quiet), teacher.head(), distill.share, distill.temperature, {}};
  }

  const Positions& positions(int64_t length) {
    if (!positions_.cosine.defined() || positions_.cosine.size(0) != length) {
      positions_ = make_positions(spec_.rope, length, at::TensorOptions(options_.device));
    }
    return positions_;
  }

  Block dense_block(const at::Tensor& hidden, int64_t layer) {
    const at::Tensor x =
        norm(hidden, spec_.norm,
             {weights_.get(Weight::MlpNorm, layer), weights_.get(Weight::MlpNormBias, layer)});
    return {dense_ffn(x, activation_of(spec_),
                      {weights_.get(Weight::DenseGateUp, layer),
                       weights_.get(Weight::DenseDown, layer), at::Tensor()}),
            x,
            {}};
  }

  Block attention_block(const at::Tensor& hidden, int64_t batch, int64_t layer,
                        const Positions& where) {
    const at::Tensor x = norm(hidden, spec_.norm,
                              {weights_.get(Weight::AttentionNorm, layer),
                               weights_.get(Weight::AttentionNormBias, layer)});
    return {attention(x, batch, layer, spec_, where, weights_), x, {}};
  }

  // alpha and beta: of MiniMax, whose residual is the block's normalised input.
  at::Tensor join(const at::Tensor& hidden, const Block& block, double alpha, double beta) const {
    if (spec_.scales.after_norm) {
      const at::Tensor kept = alpha == 1 ? block.input : block.input * alpha;
      return at::add(kept, block.output, beta);
    }
    return at::add(hidden, block.output, spec_.scales.residual);
  }

  // tokens [B, length] -> embeddings [B * length, D]
  at::Tensor embed(const at::Tensor& tokens_BT) {
    const at::Tensor embedded =
        at::embedding(weights_.get(Weight::Embedding), tokens_BT.reshape({-1}).to(options_.device));
    return spec_.scales.embedding == 1 ? embedded : embedded * spec_.scales.embedding;
  }

  at::Tensor first_state(int64_t tokens) const {
    if (!is_moue_ || pool_.state_dim == 0) return {};
    return at::zeros({tokens, pool_.state_dim},
                     at::TensorOptions(options_.device).dtype(at::kFloat));
  }

  Carried run_layer(const Carried& in, int64_t batch, int64_t layer, int64_t moe_layer,
                    const Positions& where, Pass& pass) {
    const ScaleSpec& scales = spec_.scales;
    const bool linear = spec_.attention.kind(layer) == AttentionKind::Linear;
    Carried out = in;
    out.hidden = join(in.hidden, attention_block(in.hidden, batch, layer, where),
                      linear ? scales.linear_alpha : scales.full_alpha,
                      linear ? scales.linear_beta : scales.full_beta);
    const Block block = spec_.moe[layer]
                            ? moe_block(out.hidden, moe_layer, out.state, context_, pass)
                            : dense_block(out.hidden, layer);
    out.hidden = join(out.hidden, block, scales.mlp_alpha, scales.mlp_beta);
    out.z_loss = block.z_loss;
    return out;
  }

  // The pass of a second run, which must leave no trace.
  static Pass quiet(const Pass& pass) {
    Pass again;
    again.detach_trajectory = pass.detach_trajectory;
    again.keep_records = false;
    again.balance_v = pass.balance_v;
    again.balance_scale = pass.balance_scale;
    again.z_scale = pass.z_scale;
    return again;
  }

  // tokens [B, length] -> normalised hidden states [B * length, D]
  at::Tensor forward(const at::Tensor& tokens_BT, Pass& pass) {
    const int64_t batch = tokens_BT.size(0);
    const Positions& where = positions(tokens_BT.size(1));
    pass.routed.clear();
    Carried now{embed(tokens_BT), first_state(tokens_BT.numel()), {}};
    z_loss_ = at::Tensor();
    const bool recompute = pass.recompute && at::GradMode::is_enabled();
    const auto again = std::make_shared<Pass>(quiet(pass));
    const auto observe = [&](int64_t layer) {
      if (pass.hidden_observer) pass.hidden_observer(layer, now.hidden.detach());
    };
    for (int64_t layer = 0, moe_layer = 0; layer < spec_.layers; ++layer) {
      observe(layer);
      const auto run = [this, &pass, again, &where, batch, layer, moe_layer](const Carried& in,
                                                                             bool second) {
        return run_layer(in, batch, layer, moe_layer, where, second ? *again : pass);
      };
      now = recompute ? recomputed(now, run) : run(now, false);
      if (now.z_loss.defined()) z_loss_ = z_loss_.defined() ? z_loss_ + now.z_loss : now.z_loss;
      moe_layer += spec_.moe[layer];
    }
    at::Tensor& hidden = now.hidden;
    NormSpec last = spec_.norm;
    if (last.final_eps > 0) last.eps = last.final_eps;
    hidden =
        norm(hidden, last, {weights_.get(Weight::FinalNorm), weights_.get(Weight::FinalNormBias)});
    observe(spec_.layers);
    return hidden;
  }

  bool is_moue_;
  ModelSpec spec_;
  Pool pool_;
  ModelOptions options_;
  Weights weights_;
  MoeContext context_;
  Visibility visibility_;
  Positions positions_;
  at::Tensor z_loss_;  ///< of the last forward pass; undefined where it asked for none
};

void spread(int64_t size, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
  at::parallel_for(0, size, grain, [&](int64_t begin, int64_t end) { body(context, begin, end); });
}

}  // namespace

std::unique_ptr<Model> Model::open(const Checkpoint& checkpoint, const ModelOptions& options) {
  kernels::set_parallel_for(spread);
  const Claims claims = claim(checkpoint, family_of(checkpoint.config()));
  return std::make_unique<TorchModel>(checkpoint, claims, options);
}

}  // namespace moue
