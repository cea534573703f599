// What each family of converters/ supports, from its own tables and its example.
#include "core/text.h"
#include "inspect/describe.h"
#include "moue/inspect.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace moue {

namespace {

using Json = Config::Json;

Config example_of(const Family& family) {
  return Config::parse(family.example, fmt::format("the example of {}", family.name));
}

// The example with one key set.
ModelSpec spec_with(const Family& family, const char* key, Json value) {
  Json json = example_of(family).json();
  json[key] = std::move(value);
  return family.spec(Config(std::move(json), std::string(family.name)));
}

bool has_role(const Family& family, Role role) {
  const auto in = [&](const std::vector<Row>& rows) {
    return std::ranges::any_of(rows, [&](const Row& row) { return row.role == role; });
  };
  return in(family.tensors) ||
         std::ranges::any_of(family.forms, [&](const Form& form) { return in(form.rows); });
}

bool has_layers(const Family& family, Layers layers) {
  return std::ranges::any_of(family.tensors, [&](const Row& row) { return row.layers == layers; });
}

std::string router_of(const Family& family, const ModelSpec& spec) {
  std::string text = router_text(spec, Numbers::No);
  const bool off = spec_with(family, "norm_topk_prob", false).router.renormalise;
  const bool on = spec_with(family, "norm_topk_prob", true).router.renormalise;
  if (off == on) return text;
  constexpr std::string_view kAlways = ", renormalised";
  if (const size_t at = text.find(kAlways); at != std::string::npos) text.erase(at, kAlways.size());
  return text + ", renormalised as norm_topk_prob says";
}

// What the rows and the spec show beside router and attention.
std::string rest_of(const Family& family, const ModelSpec& spec) {
  std::vector<std::string> words;
  const auto add = [&](bool holds, const char* word) {
    if (holds) words.emplace_back(word);
  };
  const ScaleSpec& s = spec.scales;
  add(has_layers(family, Layers::Dense), "dense layers");
  add(spec.shared_width > 0, spec.shared_gate ? "shared expert with a gate" : "shared experts");
  add(spec.extra_layers > 0, "layers for further tokens, kept and not computed");
  add(spec.expert_bias, "biased experts");
  add(spec.mlp_bias, "biased mix");
  add(spec.norm.kind == NormKind::Layer, "layer norm");
  add(has_role(family, Role::OutputHeadBias), "biased head");
  add(spec.activation == Activation::Clamped, "limited activation");
  add(s.after_norm, "residual behind the norm");
  add(s.embedding != 1 || s.residual != 1 || s.logits != 1, "multipliers");
  add(std::ranges::any_of(spec.attention.window, [](int64_t window) { return window > 0; }),
      "windows");
  return join(words);
}

std::vector<std::string> words_of(const std::vector<std::string_view>& views) {
  return {views.begin(), views.end()};
}

std::vector<std::string> forms_of(const Family& family) {
  std::vector<std::string> names;
  for (const Form& form : family.forms) names.emplace_back(form.name);
  return names;
}

std::string_view layers_word(const Row& row) {
  switch (row.layers) {
    case Layers::None:
      return "";
    case Layers::All:
      return "all";
    case Layers::Moe:
      return "routed";
    case Layers::Dense:
      return "dense";
    case Layers::Softmax:
      return "softmax attention";
    case Layers::Linear:
      return "linear attention";
  }
  return "";
}

std::string rows_page(const std::vector<Row>& rows) {
  std::string page = "| tensor | role | shape | layers |\n|---|---|---|---|\n";
  for (const Row& row : rows) {
    std::string notes;
    if (row.optional) notes += ", may be missing";
    if (row.transposed) notes += ", [in, out]";
    if (row.packing == Packing::Mxfp4) notes += ", two FP4 values a byte";
    page +=
        fmt::format("| `{}` | {}{} | {} | {} |\n", row.name, role_name(row.role), notes,
                    row.shape.empty() ? "" : fmt::format("`[{}]`", row.shape), layers_word(row));
  }
  return page;
}

std::string cell_text(const Value& value) { return std::get<std::string>(value); }

std::string section(const Family& family) {
  std::string page = fmt::format("\n## {}\n\n", family.name);
  page += fmt::format("An example of its config.json:\n\n```json\n{}\n```\n\n", family.example);
  page += rows_page(family.tensors);
  for (const Form& form : family.forms)
    page += fmt::format("\nForm: {}\n\n{}", form.name, rows_page(form.rows));
  return page;
}

}  // namespace

Report families_report() {
  Table table{.key = "families",
              .title = "Families",
              .columns = {"family", "architectures", "forms", "router", "attention", "rope", "and"},
              .rows = {}};
  for (const Family& family : families()) {
    const ModelSpec spec = family.spec(example_of(family));
    table.rows.push_back({std::string(family.name), join(words_of(family.architectures)),
                          join(forms_of(family)), router_of(family, spec),
                          attention_text(spec, Numbers::No), rope_text(spec, Numbers::No),
                          rest_of(family, spec)});
  }
  Report report;
  report.verb = "inspect";
  report.title = "families of converters/";
  report.tables = {std::move(table)};
  return report;
}

std::string families_reference() {
  const Report report = families_report();
  const Table& table = report.tables[0];
  std::string page =
      "# Families\n\n"
      "Written by `moue --families_reference` from the tables of `converters/`; a test compares "
      "this page\n"
      "with the program. `moue inspect --families` prints the first table.\n\n"
      "Every family reads FP8 with factors per block (`quantization_config`) and rotary embeddings "
      "of the\n"
      "types default, linear, llama3, longrope and yarn; what is none of these is refused by key "
      "and value.\n"
      "The column rope is that of the example.\n\n";
  page += fmt::format("| {} |\n|{}\n", fmt::join(table.columns, " | "), [&] {
    std::string rule;
    for (size_t i = 0; i < table.columns.size(); ++i) rule += "---|";
    return rule;
  }());
  for (const auto& row : table.rows) {
    std::vector<std::string> cells;
    for (const Value& value : row) cells.push_back(cell_text(value));
    page += fmt::format("| {} |\n", fmt::join(cells, " | "));
  }
  page +=
      "\nLetters of the shapes: V vocabulary, D width, H heads, G key/value heads, A head width, E "
      "experts,\n"
      "F expert width, I dense width, S shared width; of latent attention Q and R ranks of queries "
      "and of keys\n"
      "and values, N and P channels of a head without and with rope, U of its values; of linear "
      "attention B\n"
      "positions in a block. `{L}` is the layer, `{E}` the expert; a tensor of experts without "
      "`{E}` stacks\n"
      "those of a layer.\n";
  for (const Family& family : families()) page += section(family);
  return page;
}

}  // namespace moue
