// The way back from transformers' names and order of rows to Mistral's.
#include "support/consolidated.h"

#include <fmt/format.h>

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/index.h"
#include "support/pickles.h"
#include "support/scratch.h"

namespace moue::test {
namespace {

namespace fs = std::filesystem;

struct Held {
  std::string name;
  Dtype dtype;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
  TensorView view() const { return {name, dtype, shape, bytes}; }
};

using Bytes = std::vector<std::byte>;

// Row 2 j + i of a head is row i A/2 + j of transformers'.
Bytes rotated(const Bytes& from, int64_t rows, int64_t head_width) {
  const size_t row = from.size() / static_cast<size_t>(rows);
  Bytes to(from.size());
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t head = r / head_width, in_head = r % head_width;
    const int64_t source = head * head_width + in_head % 2 * (head_width / 2) + in_head / 2;
    std::memcpy(to.data() + static_cast<size_t>(r) * row,
                from.data() + static_cast<size_t>(source) * row, row);
  }
  return to;
}

Bytes transposed(const Bytes& from, int64_t rows, int64_t columns) {
  const size_t width = from.size() / static_cast<size_t>(rows * columns);
  Bytes to(from.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      std::memcpy(to.data() + static_cast<size_t>(c * rows + r) * width,
                  from.data() + static_cast<size_t>(r * columns + c) * width, width);
    }
  }
  return to;
}

class Writer {
 public:
  Writer(const Checkpoint& source, const ConsolidatedForm& form) : source_(source), form_(form) {
    const Config& config = source.config();
    layers_ = config.integer("num_hidden_layers");
    experts_ = config.integer("num_local_experts");
    head_width_ = config.integer(
        "head_dim", config.integer("hidden_size") / config.integer("num_attention_heads"));
  }

  std::vector<std::vector<Held>> run() {
    std::vector<std::vector<Held>> files(static_cast<size_t>(form_.files));
    put(files[0], "model.embed_tokens.weight", "tok_embeddings.weight");
    put(files[0], "model.norm.weight", "norm.weight");
    put(files[0], "lm_head.weight", "output.weight");
    for (int64_t layer = 0; layer < layers_; ++layer) {
      add_layer(files[static_cast<size_t>(layer) % files.size()], layer);
    }
    return files;
  }

  std::string params() const {
    const Config& config = source_.config();
    nlohmann::ordered_json json;
    json["dim"] = config.integer("hidden_size");
    json["n_layers"] = layers_;
    json["head_dim"] = head_width_;
    json["hidden_dim"] = config.integer("intermediate_size");
    json["n_heads"] = config.integer("num_attention_heads");
    json["n_kv_heads"] = config.integer("num_key_value_heads");
    json["norm_eps"] = config.real("rms_norm_eps");
    json["vocab_size"] = config.integer("vocab_size");
    json["rope_theta"] = config.real({"rope_parameters.rope_theta", "rope_theta"}, 1e6);
    json["moe"] = {{"num_experts", experts_},
                   {"num_experts_per_tok", config.integer("num_experts_per_tok")}};
    if (config.has("sliding_window")) json["sliding_window"] = config.integer("sliding_window");
    return json.dump();
  }

 private:
  Held& put(std::vector<Held>& file, const std::string& from, std::string to) {
    const TensorInfo& tensor = source_.at(from);
    file.push_back({std::move(to), tensor.dtype, tensor.shape, source_.read(tensor)});
    return file.back();
  }

  void add_layer(std::vector<Held>& file, int64_t layer) {
    const std::string from = fmt::format("model.layers.{}.", layer),
                      to = fmt::format("layers.{}.", layer);
    const bool stacked = form_.names == Names::Stacked;
    put(file, from + "input_layernorm.weight", to + "attention_norm.weight");
    put(file, from + "post_attention_layernorm.weight", to + "ffn_norm.weight");
    put(file, from + "self_attn.v_proj.weight", to + "attention.wv.weight");
    put(file, from + "self_attn.o_proj.weight", to + "attention.wo.weight");
    for (const char name : {'q', 'k'}) {
      Held& matrix = put(file, fmt::format("{}self_attn.{}_proj.weight", from, name),
                         fmt::format("{}attention.w{}.weight", to, name));
      if (form_.rotated) matrix.bytes = rotated(matrix.bytes, matrix.shape[0], head_width_);
    }
    put(file, from + "block_sparse_moe.gate.weight",
        to + (stacked ? "block_sparse_moe.gate.weight" : "feed_forward.gate.weight"));
    for (const char* matrix : {"w1", "w2", "w3"}) {
      if (stacked) {
        add_stack(file, from, to, matrix);
      } else {
        add_each(file, from, to, matrix);
      }
    }
  }

  void add_each(std::vector<Held>& file, const std::string& from, const std::string& to,
                const char* matrix) {
    for (int64_t expert = 0; expert < experts_; ++expert) {
      const std::string rest = fmt::format("experts.{}.{}.weight", expert, matrix);
      put(file, from + "block_sparse_moe." + rest, to + "feed_forward." + rest);
    }
  }

  void add_stack(std::vector<Held>& file, const std::string& from, const std::string& to,
                 const std::string& matrix) {
    Held stack{to + "block_sparse_moe." + matrix, Dtype::F32, {}, {}};
    for (int64_t expert = 0; expert < experts_; ++expert) {
      const TensorInfo& one =
          source_.at(fmt::format("{}block_sparse_moe.experts.{}.{}.weight", from, expert, matrix));
      Bytes bytes = source_.read(one);
      stack.dtype = one.dtype;
      stack.shape = one.shape;
      if (matrix == "w2") {
        bytes = transposed(bytes, one.shape[0], one.shape[1]);
        std::swap(stack.shape[0], stack.shape[1]);
      }
      stack.bytes.insert(stack.bytes.end(), bytes.begin(), bytes.end());
    }
    stack.shape[0] *= experts_;
    file.push_back(std::move(stack));
  }

  const Checkpoint& source_;
  ConsolidatedForm form_;
  int64_t layers_ = 0, experts_ = 0, head_width_ = 0;
};

std::vector<TensorView> views_of(const std::vector<Held>& tensors) {
  std::vector<TensorView> views;
  for (const Held& tensor : tensors) views.push_back(tensor.view());
  return views;
}

}  // namespace

void write_consolidated(const Checkpoint& source, const ConsolidatedForm& form,
                        const fs::path& to) {
  fs::create_directory(to);
  Writer writer(source, form);
  const auto files = writer.run();
  for (size_t i = 0; i < files.size(); ++i) {
    const std::vector<TensorView> views = views_of(files[i]);
    if (form.pickled) {
      write_text(to / fmt::format("consolidated.{:02}.pth", i), torch_file(views));
    } else if (files.size() == 1) {
      write_safetensors(to / "consolidated.safetensors", views);
    } else {
      write_safetensors(
          to / fmt::format("consolidated-{:05}-of-{:05}.safetensors", i + 1, files.size()), views);
    }
  }
  write_text(to / "params.json", writer.params());
}

void write_pytorch(const Checkpoint& source, int files, const fs::path& to) {
  fs::create_directory(to);
  fs::copy_file(source.directory() / "config.json", to / "config.json");
  std::vector<std::vector<Held>> parts(static_cast<size_t>(files));
  Index index;
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    const TensorInfo& tensor = source.tensors()[i];
    const size_t part = i * parts.size() / source.tensors().size();
    parts[part].push_back({tensor.name, tensor.dtype, tensor.shape, source.read(tensor)});
    index.weight_map.emplace_back(tensor.name, static_cast<uint32_t>(part));
  }
  for (int i = 0; i < files; ++i) {
    index.files.push_back(files == 1
                              ? "pytorch_model.bin"
                              : fmt::format("pytorch_model-{:05}-of-{:05}.bin", i + 1, files));
    write_text(to / index.files.back(), torch_file(views_of(parts[static_cast<size_t>(i)])));
  }
  if (files > 1) {
    write_text(to / "pytorch_model.bin.index.json", index_text(index, 0, source.data_bytes()));
  }
}

}  // namespace moue::test
