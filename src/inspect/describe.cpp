// How a model computes, in words.
#include "inspect/describe.h"

#include "core/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace moue {

namespace {

std::string kind_word(AttentionKind kind) {
  switch (kind) {
    case AttentionKind::Latent:
      return "latent";
    case AttentionKind::Linear:
      return "linear";
    case AttentionKind::Experts:
      return "experts";
    case AttentionKind::Grouped:
      break;
  }
  return "grouped";
}

std::string score_text(const RouterSpec& r) {
  switch (r.score) {
    case RouterScore::Sigmoid:
      return r.correction ? "sigmoid with a correction of the choice" : "sigmoid";
    case RouterScore::Chosen:
      return r.bias ? "softmax over the chosen, logits biased" : "softmax over the chosen";
    case RouterScore::Sparse:
      return "SparseMixer";
    case RouterScore::Softmax:
      break;
  }
  return "softmax";
}

// In how many layers each kind of attention stands, those that do.
std::vector<std::pair<AttentionKind, int64_t>> kinds_of(const ModelSpec& spec) {
  std::vector<std::pair<AttentionKind, int64_t>> result;
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    const AttentionKind kind = spec.attention.kind(layer);
    const auto found =
        std::ranges::find(result, kind, [](const auto& entry) { return entry.first; });
    if (found == result.end()) {
      result.emplace_back(kind, 1);
    } else {
      ++found->second;
    }
  }
  return result;
}

std::vector<std::string> kind_words(const ModelSpec& spec, Numbers numbers) {
  std::vector<std::string> words;
  const auto kinds = kinds_of(spec);
  for (const auto& [kind, layers] : kinds) {
    const bool counts = numbers == Numbers::Yes && kinds.size() > 1;
    words.push_back(counts ? fmt::format("{} in {} layers", kind_word(kind), layers)
                           : kind_word(kind));
  }
  return words;
}

void add_sizes(const AttentionSpec& a, std::vector<std::string>& words) {
  words.push_back(fmt::format("{} heads of {}", a.heads, a.head_width));
  if (a.latent.rank > 0) {
    words.push_back(fmt::format("values of {}", a.latent.value_width));
    words.push_back(fmt::format("rank {}", a.latent.rank));
    if (a.latent.query_rank) words.push_back(fmt::format("queries {}", a.latent.query_rank));
  } else {
    words.push_back(fmt::format("{} key/value", a.kv_heads));
  }
}

}  // namespace

std::string router_text(const ModelSpec& spec, Numbers numbers) {
  const RouterSpec& r = spec.router;
  const bool exact = numbers == Numbers::Yes;
  std::vector<std::string> words = {score_text(r)};
  if (exact) words.push_back(fmt::format("top {}", spec.experts_per_token));
  if (r.groups > 1) {
    words.push_back(exact ? fmt::format("from the best {} of {} groups", r.kept_groups, r.groups)
                          : "from the best groups");
  }
  if (r.score == RouterScore::Softmax || r.score == RouterScore::Sigmoid) {
    if (r.renormalise) words.emplace_back("renormalised");
    if (r.renormalise && r.norm_power != 1 && exact)
      words.push_back(fmt::format("by the {}-norm", r.norm_power));
  }
  if (exact && r.scale != 1) words.push_back(fmt::format("times {}", r.scale));
  if (exact && r.jitter != 0) words.push_back(fmt::format("jitter {}", r.jitter));
  if (r.float32_logits) words.emplace_back("logits in float32");
  if (r.score_in_logits_dtype) words.emplace_back("scores in the logits' dtype");
  if (r.gates_in_logits_dtype) words.emplace_back("gates in the logits' dtype");
  return join(words);
}

std::string attention_text(const ModelSpec& spec, Numbers numbers) {
  const AttentionSpec& a = spec.attention;
  std::vector<std::string> words = kind_words(spec, numbers);
  if (numbers == Numbers::Yes) add_sizes(a, words);
  if (a.qk_norm == QkNorm::PerHead) words.emplace_back("heads normalised");
  if (a.qk_norm == QkNorm::Whole) words.emplace_back("queries and keys normalised");
  if (a.clip > 0)
    words.push_back(numbers == Numbers::Yes ? fmt::format("limited to {}", a.clip) : "limited");
  if (a.sinks) words.emplace_back("sinks");
  if (a.bias) words.emplace_back(a.output_bias ? "biases" : "biases of q, k, v");
  return join(words);
}

std::string rope_text(const ModelSpec& spec, Numbers numbers) {
  const RopeSpec& r = spec.rope;
  static constexpr const char* kNames[] = {"plain", "linear", "yarn", "longrope", "llama3"};
  std::vector<std::string> words = {kNames[static_cast<size_t>(r.kind)]};
  if (numbers == Numbers::Yes) {
    if (r.kind != RopeKind::Default) words.push_back(fmt::format("times {}", r.factor));
    words.push_back(fmt::format("theta {}", r.theta));
  }
  if (r.width != spec.attention.head_width) {
    words.push_back(numbers == Numbers::Yes
                        ? fmt::format("{} of {} channels", r.width, spec.attention.head_width)
                        : "a part of each head");
  }
  return join(words);
}

std::string shared_text(const ModelSpec& spec) {
  if (spec.shared_width == 0) return "none";
  return fmt::format("{} wide{}", spec.shared_width, spec.shared_gate ? ", gated" : "");
}

std::string layer_text(const AttentionSpec& attention, int64_t layer) {
  const AttentionKind kind = attention.kind(layer);
  if (kind != AttentionKind::Grouped) return kind_word(kind);
  const int64_t window = attention.window[layer];
  return window ? fmt::format("window {}", window) : "full";
}

}  // namespace moue
