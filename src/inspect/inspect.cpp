// What a checkpoint holds, from its headers alone.
#include "moue/inspect.h"

#include "core/text.h"
#include "family/count.h"
#include "inspect/describe.h"
#include "moue/pool.h"
#include "pool/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace moue {

namespace {

int64_t whole(uint64_t value) { return static_cast<int64_t>(value); }

// "BF16", or "BF16 994, F32 1" by number of tensors.
std::string dtypes_text(const Checkpoint& source) {
  std::map<std::string_view, int64_t> count;
  for (const TensorInfo& tensor : source.tensors()) ++count[dtype_name(tensor.dtype)];
  if (count.size() == 1) return std::string(count.begin()->first);
  std::vector<std::string> words;
  for (const auto& [name, tensors] : count) words.push_back(fmt::format("{} {}", name, tensors));
  return join(words);
}

// How the numbers of matrices are packed.
std::string packing_text(const Claims& claims) {
  for (const Claim& claim : claims.of_tensors()) {
    if (claim.row && claim.row->packing == Packing::Mxfp4) return "MXFP4, experts";
  }
  return claims.is_packed() ? "FP8, factors of blocks" : "none";
}

std::vector<Fact> facts_of(const Checkpoint& source, const Family& family, const Claims& claims,
                           const ModelSpec& spec, const Counts& counts, int64_t pool_parameters) {
  const std::vector<std::string> architectures = source.config().strings("architectures");
  return {{"family", std::string(family.name), ""},
          {"architecture", architectures.empty() ? "" : printable(architectures[0]), ""},
          {"kind", std::string(is_moue(source.config()) ? "MoUE" : "MoE"), ""},
          {"form", std::string(claims.form()), ""},
          {"packing", packing_text(claims), ""},
          {"dtype", dtypes_text(source), ""},
          {"parameters", counts.parameters + pool_parameters, ""},
          {"active_parameters", counts.active + pool_parameters, "per token"},
          {"bytes", whole(source.data_bytes()), "B"},
          {"tensors", whole(source.tensors().size()), ""},
          {"shards", whole(source.files().size()), ""},
          {"layers", spec.layers, ""},
          {"moe_layers", spec.num_moe_layers(), ""},
          {"extra_layers", spec.extra_layers, "kept, not computed"},
          {"experts", spec.experts, "per layer"},
          {"experts_per_token", spec.experts_per_token, ""},
          {"width", spec.width, ""},
          {"expert_width", spec.expert_width, ""},
          {"vocabulary", spec.vocabulary, ""},
          {"shared_experts", shared_text(spec), ""},
          {"attention", attention_text(spec, Numbers::Yes), ""},
          {"rope", rope_text(spec, Numbers::Yes), ""},
          {"router", router_text(spec, Numbers::Yes), ""},
          {"tied_head", spec.tied_head, ""},
          {"other_files", join_some(source.other_files()), ""}};
}

Table roles_table(const Counts& counts) {
  Table table{.key = "roles",
              .title = "Roles",
              .columns = {"role", "tensors", "parameters", "active", "bytes"},
              .rows = {}};
  for (const RoleCount& role : counts.roles) {
    table.rows.push_back({std::string(role_name(role.role)), role.tensors, role.parameters,
                          role.active, whole(role.bytes)});
  }
  return table;
}

Table layers_table(const ModelSpec& spec, const Counts& counts) {
  Table table{.key = "layers",
              .title = "Layers",
              .columns = {"layer", "attention", "feed-forward", "experts", "width", "parameters"},
              .rows = {}};
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    table.rows.push_back(
        {layer, layer_text(spec.attention, layer), std::string(spec.moe[layer] ? "MoE" : "dense"),
         spec.moe[layer] ? spec.experts : int64_t{0},
         spec.moe[layer] ? spec.expert_width : spec.dense_width, counts.per_layer[layer]});
  }
  return table;
}

Table shards_table(const Checkpoint& source) {
  Table table{
      .key = "shards", .title = "Shards", .columns = {"file", "tensors", "bytes"}, .rows = {}};
  for (size_t i = 0; i < source.files().size(); ++i) {
    table.rows.push_back({source.file_names()[i], whole(source.files()[i].tensors().size()),
                          whole(source.files()[i].size())});
  }
  return table;
}

void add_pool(const Checkpoint& source, const ModelSpec& spec, Report& report) {
  const Pool pool = read_pool(source.config());
  check_pool_fits(pool, spec, source);
  for (Fact& fact : pool_facts(pool)) {
    if (fact.key != "moe_layers") report.facts.push_back(std::move(fact));
  }
  report.tables.push_back(slots_table(pool));
}

void add_ignored(const Checkpoint& source, const Claims& claims, Report& report) {
  std::vector<std::string> names;
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    const Claim& claim = claims.of_tensors()[i];
    if (claim.row && claim.row->role == Role::Ignored) names.push_back(source.tensors()[i].name);
  }
  if (names.empty()) return;
  report.warnings.push_back(
      fmt::format("{} ignored: {}", counted(names.size(), "tensor"), join_some(names)));
}

}  // namespace

Report inspect(const Checkpoint& source, const Family& family) {
  const Claims claims = claim(source, family);
  const ModelSpec spec = family.spec(source.config());
  const Counts counts = count_parameters(source, claims, spec);
  int64_t pool_parameters = 0;
  for (const TensorInfo& tensor : source.tensors()) {
    if (is_pool_tensor(tensor.name)) pool_parameters += num_elements(tensor);
  }
  Report report;
  report.verb = "inspect";
  report.title = source.directory().string();
  report.facts = facts_of(source, family, claims, spec, counts, pool_parameters);
  report.tables = {roles_table(counts), layers_table(spec, counts), shards_table(source)};
  add_ignored(source, claims, report);
  if (is_moue(source.config())) add_pool(source, spec, report);
  return report;
}

}  // namespace moue
