// Attention by experts: queries sorted by expert for their products, in order of token for the
// attention.
#include "model/attention_experts.h"

#include "model/product.h"
#include "model/softmax_attention.h"
#include "model/torch.h"

namespace moue {
namespace {

// Choices sorted by expert, then token.
struct Sorted {
  at::Tensor choice;           ///< int64 [T K] row -> t K + k
  at::Tensor row;              ///< int64 [T K] its inverse
  std::vector<int64_t> count;  ///< [E]
};

Sorted sorted(const at::Tensor& chosen_TK, int64_t experts) {
  const at::Tensor flat = chosen_TK.reshape({-1});
  Sorted s;
  s.choice = std::get<1>(flat.sort(std::optional(/*stable=*/true)));
  s.row = at::empty_like(s.choice).scatter_(0, s.choice,
                                            at::arange(s.choice.numel(), s.choice.options()));
  const at::Tensor count = flat.bincount({}, experts).cpu();
  s.count.assign(count.data_ptr<int64_t>(), count.data_ptr<int64_t>() + experts);
  return s;
}

// Rows sorted by expert, each times its expert's matrix; stack [E, out, in].
at::Tensor products(const at::Tensor& rows, const at::Tensor& stack, const Sorted& order) {
  const auto parts = rows.split_with_sizes(order.count);
  const auto matrices = stack.unbind();
  std::vector<at::Tensor> out;
  for (size_t e = 0; e < parts.size(); ++e) {
    if (order.count[e] > 0) out.push_back(project(parts[e], matrices[e]));
  }
  return at::cat(out);
}

}  // namespace

at::Tensor attention_experts(const at::Tensor& x_TD, int64_t batch, const AttentionSpec& spec,
                             int64_t layer, int64_t experts_per_token, const Positions& positions,
                             const AttentionExpertsWeights& weights) {
  const int64_t T = x_TD.size(0), length = T / batch, K = experts_per_token;
  const int64_t G = spec.kv_heads, A = spec.head_width;
  const at::Tensor logits = project(x_TD, weights.router).to(at::kFloat);
  const auto [best_TK, chosen_TK] = logits.topk(K, 1);
  const at::Tensor gate_TK = best_TK.softmax(1).to(x_TD.scalar_type());
  const Sorted order = sorted(chosen_TK, weights.router.size(0));

  // Copied K times, then permuted: so that no gradient is added to from two places at once.
  const at::Tensor copies = x_TD.unsqueeze(1).expand({T, K, -1}).reshape({T * K, -1});
  const at::Tensor by_choice = products(copies.index_select(0, order.choice), weights.input, order)
                                   .index_select(0, order.row);
  const at::Tensor q = rope(by_choice.view({batch, length, K * G, A}), positions);
  const auto parts = project(x_TD, weights.key_value).split(G * A, -1);
  // Head (k, g) of a token looks at keys and values g: they are repeated whole, not each.
  const at::Tensor k = rope(parts[0].view({batch, length, G, A}), positions).repeat({1, K, 1, 1});
  const at::Tensor v = parts[1].view({batch, length, G, A}).transpose(1, 2).repeat({1, K, 1, 1});
  const int64_t window = spec.window.empty() ? 0 : spec.window[layer];
  const at::Tensor heads = softmax_attention(q, k, v, spec.scale, window, {});

  const at::Tensor rows = heads.view({T * K, G * A}).index_select(0, order.choice);
  const at::Tensor answers =
      products(rows, weights.output, order).index_select(0, order.row).view({T, K, -1});
  return (answers * gate_TK.unsqueeze(-1)).sum(1) + weights.bias;
}

}  // namespace moue
