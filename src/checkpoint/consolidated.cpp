// Mistral's names and numbers in transformers' words; what lies otherwise is read through strides.
#include "checkpoint/consolidated.h"

#include "core/text.h"
#include "moue/error.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace moue {
namespace {

using Json = nlohmann::ordered_json;

// Keys of params.json that say nothing about what is computed.
constexpr std::array<std::string_view, 4> kSilent = {"max_batch_size", "max_seq_len", "model_type",
                                                     "max_position_embeddings"};
constexpr std::array<std::string_view, 12> kKnown = {
    "dim",      "n_layers",   "head_dim",   "hidden_dim", "n_heads",        "n_kv_heads",
    "norm_eps", "vocab_size", "rope_theta", "moe",        "sliding_window", "tied_embeddings"};

bool is_known(const std::string& key) {
  return std::ranges::find(kKnown, key) != kKnown.end() ||
         std::ranges::find(kSilent, key) != kSilent.end();
}

std::string_view torch_name(Dtype dtype) {
  switch (dtype) {
    case Dtype::F16:
      return "float16";
    case Dtype::F32:
      return "float32";
    default:
      return "bfloat16";
  }
}

Config translated_config(const Config& params, const std::vector<TensorInfo>& tensors) {
  std::vector<std::string> unknown;
  for (const auto& [key, value] : params.json().items()) {
    if (!is_known(key)) unknown.push_back(in_quotes(key));
  }
  if (!unknown.empty()) {
    fail("config", "{}: {} of a Mixtral: {}", params.origin(),
         unknown.size() == 1 ? "a key is not one" : "keys are not those", join_some(unknown));
  }
  const auto integer = [&](std::string_view key) { return params.integer(key); };
  Json json;
  json["architectures"] = {"MixtralForCausalLM"};
  json["model_type"] = "mixtral";
  json["vocab_size"] = integer("vocab_size");
  json["hidden_size"] = integer("dim");
  json["intermediate_size"] = integer("hidden_dim");
  json["num_hidden_layers"] = integer("n_layers");
  json["num_attention_heads"] = integer("n_heads");
  json["num_key_value_heads"] = params.integer("n_kv_heads", integer("n_heads"));
  json["head_dim"] = integer("head_dim");
  json["num_local_experts"] = integer("moe.num_experts");
  json["num_experts_per_tok"] = integer("moe.num_experts_per_tok");
  json["hidden_act"] = "silu";
  json["rms_norm_eps"] = params.real("norm_eps");
  // Mistral's code turned by 10^4 while it had a window, by 10^6 since.
  const bool has_window = params.has("sliding_window");
  json["rope_theta"] = params.real("rope_theta", has_window ? 1e4 : 1e6);
  json["sliding_window"] = has_window ? Json(integer("sliding_window")) : Json(nullptr);
  json["tie_word_embeddings"] = params.boolean("tied_embeddings", false);
  if (!tensors.empty()) json["torch_dtype"] = torch_name(tensors.front().dtype);
  return Config(std::move(json), params.origin());
}

struct Sizes {
  int64_t width, expert_width, experts, heads, kv_heads, head_width;
};

Sizes sizes_of(const Config& config) {
  const Sizes sizes{config.integer("hidden_size"),         config.integer("intermediate_size"),
                    config.integer("num_local_experts"),   config.integer("num_attention_heads"),
                    config.integer("num_key_value_heads"), config.integer("head_dim")};
  constexpr int64_t kMost = 1 << 24;
  for (const int64_t size : {sizes.width, sizes.expert_width, sizes.experts, sizes.heads,
                             sizes.kv_heads, sizes.head_width}) {
    if (size < 1 || size > kMost) {
      fail("config", "{}: a size is {}, wanted 1 to {}", config.origin(), size, kMost);
    }
  }
  if (sizes.head_width % 2 != 0) {
    fail("config", "{}: head_dim is {}, wanted an even one", config.origin(), sizes.head_width);
  }
  return sizes;
}

struct Renamed {
  std::string_view from, to;
};
constexpr std::array<Renamed, 3> kOutside = {
    {{"tok_embeddings.weight", "model.embed_tokens.weight"},
     {"norm.weight", "model.norm.weight"},
     {"output.weight", "lm_head.weight"}}};
constexpr std::array<Renamed, 6> kOfLayer = {
    {{"attention_norm.weight", "input_layernorm.weight"},
     {"ffn_norm.weight", "post_attention_layernorm.weight"},
     {"attention.wv.weight", "self_attn.v_proj.weight"},
     {"attention.wo.weight", "self_attn.o_proj.weight"},
     {"feed_forward.gate.weight", "block_sparse_moe.gate.weight"},
     {"block_sparse_moe.gate.weight", "block_sparse_moe.gate.weight"}}};

template <size_t N>
std::optional<std::string_view> renamed(const std::array<Renamed, N>& table,
                                        std::string_view name) {
  const auto found = std::ranges::find(table, name, &Renamed::from);
  if (found == table.end()) return std::nullopt;
  return found->to;
}

// Takes "12." off the front; a number is written without a sign or leading zeros.
std::optional<std::string_view> take_number(std::string_view& name) {
  const size_t dot = name.find('.');
  if (dot == name.npos || dot == 0 || dot > 8 || (name[0] == '0' && dot > 1)) return std::nullopt;
  const std::string_view digits = name.substr(0, dot);
  if (digits.find_first_not_of("0123456789") != digits.npos) return std::nullopt;
  name.remove_prefix(dot + 1);
  return digits;
}

class Translator {
 public:
  Translator(const Checkpoint::Contents& contents, const Sizes& sizes)
      : contents_(contents), sizes_(sizes) {}

  std::vector<TensorInfo> run() {
    for (const TensorInfo& tensor : contents_.tensors) {
      if (!add(tensor)) unknown_.push_back(in_quotes(tensor.name));
    }
    const std::string directory = printable(contents_.directory.native(), 400);
    if (!unknown_.empty()) {
      fail("checkpoint", "{}: {} of no Mixtral: {}", directory, counted(unknown_.size(), "tensor"),
           join_some(unknown_));
    }
    if (!faults_.empty()) fail("checkpoint", "{}: {}", directory, join_some(faults_, 8));
    return std::move(result_);
  }

 private:
  bool add(const TensorInfo& tensor) {
    std::string_view rest = tensor.name;
    if (const auto name = renamed(kOutside, rest)) return put(tensor, std::string(*name));
    if (!rest.starts_with("layers.")) return false;
    rest.remove_prefix(7);
    const auto layer = take_number(rest);
    if (!layer) return false;
    const std::string start = fmt::format("model.layers.{}.", *layer);
    if (const auto name = renamed(kOfLayer, rest)) return put(tensor, start + std::string(*name));
    if (rest == "attention.wq.weight") {
      return put_rotated(tensor, start + "self_attn.q_proj.weight", sizes_.heads);
    }
    if (rest == "attention.wk.weight") {
      return put_rotated(tensor, start + "self_attn.k_proj.weight", sizes_.kv_heads);
    }
    return add_expert(tensor, rest, start + "block_sparse_moe.experts.");
  }

  bool add_expert(const TensorInfo& tensor, std::string_view rest, const std::string& start) {
    constexpr std::string_view kEach = "feed_forward.experts.", kStack = "block_sparse_moe.";
    const auto is_matrix = [](std::string_view name) {
      return name == "w1" || name == "w2" || name == "w3";
    };
    if (rest.starts_with(kEach)) {
      rest.remove_prefix(kEach.size());
      const auto expert = take_number(rest);
      if (!expert || !rest.ends_with(".weight") || !is_matrix(rest.substr(0, 2)) ||
          rest.size() != 9) {
        return false;
      }
      return put(tensor, fmt::format("{}{}.{}", start, *expert, rest));
    }
    if (!rest.starts_with(kStack) || !is_matrix(rest.substr(kStack.size()))) return false;
    return put_stack(tensor, start, rest.substr(kStack.size()));
  }

  TensorInfo& copy(const TensorInfo& tensor, std::string name) {
    result_.push_back(tensor);
    result_.back().name = std::move(name);
    return result_.back();
  }

  bool put(const TensorInfo& tensor, std::string name) {
    copy(tensor, std::move(name));
    return true;
  }

  bool has_shape(const TensorInfo& tensor, int64_t rows, int64_t columns) {
    if (tensor.shape == std::vector<int64_t>{rows, columns} && !tensor.strided &&
        dtype_bits(tensor.dtype) % 8 == 0) {
      return true;
    }
    faults_.push_back(fmt::format("{} is {}{}, params.json asks for [{}, {}]",
                                  in_quotes(tensor.name), shape_text(tensor.shape),
                                  tensor.strided ? " in strides" : "", rows, columns));
    return false;
  }

  // Mistral turns neighbours of a head, (0, 1), (2, 3), transformers turns its halves,
  // (0, A/2), (1, A/2 + 1): row 2 j + i of a head is row i A/2 + j there.
  bool put_rotated(const TensorInfo& tensor, std::string name, int64_t heads) {
    const int64_t A = sizes_.head_width, D = sizes_.width;
    if (!has_shape(tensor, heads * A, D)) return true;
    copy(tensor, std::move(name)).strided =
        std::make_shared<const Strided>(Strided{{heads, 2, A / 2, D}, {A * D, D, 2 * D, 1}});
    return true;
  }

  // The experts' matrices one below the other, [E F, D], the third one transposed.
  bool put_stack(const TensorInfo& stack, const std::string& start, std::string_view matrix) {
    const int64_t F = sizes_.expert_width, D = sizes_.width;
    if (!has_shape(stack, sizes_.experts * F, D)) return true;
    const uint64_t bytes = stack.bytes / static_cast<uint64_t>(sizes_.experts);
    for (int64_t expert = 0; expert < sizes_.experts; ++expert) {
      TensorInfo& part = copy(stack, fmt::format("{}{}.{}.weight", start, expert, matrix));
      part.offset += static_cast<uint64_t>(expert) * bytes;
      part.bytes = bytes;
      part.shape = {F, D};
      if (matrix != "w2") continue;
      part.shape = {D, F};
      part.strided = std::make_shared<const Strided>(Strided{{D, F}, {1, D}});
    }
    return true;
  }

  const Checkpoint::Contents& contents_;
  Sizes sizes_;
  std::vector<TensorInfo> result_;
  std::vector<std::string> unknown_, faults_;
};

}  // namespace

void translate(Checkpoint::Contents& contents) {
  const Config params = Config::read(contents.directory / contents.config_file);
  Config config = translated_config(params, contents.tensors);
  std::vector<TensorInfo> tensors = Translator(contents, sizes_of(config)).run();
  contents.by_name.clear();  // its keys point into the old ones
  contents.tensors = std::move(tensors);
  contents.config = std::move(config);
  std::vector<std::string> twice;
  for (uint32_t i = 0; i < contents.tensors.size(); ++i) {
    const TensorInfo& tensor = contents.tensors[i];
    if (!contents.by_name.emplace(tensor.name, i).second) twice.push_back(in_quotes(tensor.name));
  }
  if (twice.empty()) return;
  fail("checkpoint", "{}: {} in both generations of names: {}",
       printable(contents.directory.native(), 400), counted(twice.size(), "tensor"),
       join_some(twice));
}

}  // namespace moue
