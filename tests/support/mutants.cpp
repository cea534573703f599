// The catalogue of mutants: experts, projections, routers, other weights, the pool's tensors, its
// block, files.
#include "support/mutants.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <set>

namespace moue::test {

namespace fs = std::filesystem;

namespace {

using enum Role;
using Model = LooseModel;
using List = std::vector<Mutant>;

constexpr std::array kExpert = {ExpertGate, ExpertUp, ExpertDown};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// The layers and experts that mutants work on: the second and the first MoE layer, experts 1 and 2.
int64_t here(const Model& model) { return model.pool.moe_layers[1]; }
int64_t there(const Model& model) { return model.pool.moe_layers[0]; }

void swap_bytes(LooseTensor& a, LooseTensor& b) { std::swap(a.bytes, b.bytes); }

void flip(LooseTensor& tensor, size_t byte, int bit) {
  tensor.bytes.at(byte) ^= std::byte{1} << bit;
}

void zero(LooseTensor& tensor) { std::ranges::fill(tensor.bytes, std::byte{0}); }

// Row-major transpose of the elements; the shape stays or turns with them.
void transpose(LooseTensor& tensor, bool turn_shape) {
  const int64_t rows = tensor.shape.at(0), columns = tensor.shape.at(1);
  const size_t width = tensor.bytes.size() / static_cast<size_t>(rows * columns);
  std::vector<std::byte> turned(tensor.bytes.size());
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      std::memcpy(&turned[(column * rows + row) * width],
                  &tensor.bytes[(row * columns + column) * width], width);
    }
  }
  tensor.bytes = std::move(turned);
  if (turn_shape) std::swap(tensor.shape[0], tensor.shape[1]);
}

std::span<std::byte> row(LooseTensor& tensor, int64_t index) {
  const size_t width = tensor.bytes.size() / static_cast<size_t>(tensor.shape.at(0));
  return std::span(tensor.bytes).subspan(static_cast<size_t>(index) * width, width);
}

void swap_rows(LooseTensor& tensor, int64_t a, int64_t b) {
  std::ranges::swap_ranges(row(tensor, a), row(tensor, b));
}

void copy_expert(Model& model, int64_t from_layer, int64_t from, int64_t to_layer, int64_t to) {
  for (const Role role : kExpert) {
    model.at(role, to_layer, to).bytes = model.at(role, from_layer, from).bytes;
  }
}

void swap_experts(Model& model, int64_t layer_a, int64_t a, int64_t layer_b, int64_t b) {
  for (const Role role : kExpert)
    swap_bytes(model.at(role, layer_a, a), model.at(role, layer_b, b));
}

void negate(LooseTensor& tensor) {  // little-endian floats of any width: the sign is the last bit
  const int64_t elements = tensor.shape.at(0) * tensor.shape.at(1);
  const size_t width = tensor.bytes.size() / static_cast<size_t>(elements);
  for (size_t i = width - 1; i < tensor.bytes.size(); i += width) tensor.bytes[i] ^= std::byte{128};
}

void widen(LooseTensor& tensor) {
  std::vector<std::byte> wide(tensor.bytes.size() * 2);
  tensor.dtype = tensor.dtype == Dtype::F32 ? Dtype::F64 : Dtype::F32;
  tensor.bytes = std::move(wide);
}

void narrow(LooseTensor& tensor) {  // F32 to BF16 by cutting
  std::vector<std::byte> cut;
  for (size_t i = 0; i < tensor.bytes.size(); i += 4) {
    cut.insert(cut.end(), {tensor.bytes[i + 2], tensor.bytes[i + 3]});
  }
  tensor.dtype = Dtype::BF16;
  tensor.bytes = std::move(cut);
}

void add_experts(List& list) {
  const char* kGate = "G0 tensors";
  list.push_back({"delete one expert", "G0 structure", [](Model& m) {
                    for (const Role role : kExpert) m.erase(m.at(role, here(m), 1).name);
                  }});
  list.push_back({"zero one expert", kGate, [](Model& m) {
                    for (const Role role : kExpert) zero(m.at(role, here(m), 1));
                  }});
  list.push_back(
      {"zero a down projection", kGate, [](Model& m) { zero(m.at(ExpertDown, here(m), 1)); }});
  list.push_back({"swap two experts of a layer", kGate,
                  [](Model& m) { swap_experts(m, here(m), 1, here(m), 2); }});
  list.push_back({"swap experts of two layers", kGate,
                  [](Model& m) { swap_experts(m, here(m), 1, there(m), 1); }});
  list.push_back(
      {"duplicate one expert", kGate, [](Model& m) { copy_expert(m, here(m), 1, here(m), 2); }});
  list.push_back({"duplicate an expert of another layer", kGate,
                  [](Model& m) { copy_expert(m, there(m), 1, here(m), 1); }});
  list.push_back({"rotate the experts of a layer", kGate, [](Model& m) {
                    for (int64_t e = 1; e < m.pool.experts_per_layer; ++e) {
                      swap_experts(m, here(m), 0, here(m), e);
                    }
                  }});
  list.push_back({"swap gate and up of one expert", kGate, [](Model& m) {
                    swap_bytes(m.at(ExpertGate, here(m), 1), m.at(ExpertUp, here(m), 1));
                  }});
  list.push_back({"swap gate and up of a layer", kGate, [](Model& m) {
                    for (int64_t e = 0; e < m.pool.experts_per_layer; ++e) {
                      swap_bytes(m.at(ExpertGate, here(m), e), m.at(ExpertUp, here(m), e));
                    }
                  }});
  list.push_back({"transpose a down projection under its shape", kGate,
                  [](Model& m) { transpose(m.at(ExpertDown, here(m), 1), false); }});
  list.push_back({"transpose a gate projection with its shape", "G0 structure",
                  [](Model& m) { transpose(m.at(ExpertGate, here(m), 1), true); }});
  list.push_back(
      {"negate a down projection", kGate, [](Model& m) { negate(m.at(ExpertDown, here(m), 1)); }});
  list.push_back({"swap two rows of a gate projection", kGate,
                  [](Model& m) { swap_rows(m.at(ExpertGate, here(m), 1), 0, 1); }});
  list.push_back({"flip the lowest bit of an expert", kGate,
                  [](Model& m) { flip(m.at(ExpertUp, here(m), 1), 0, 0); }});
  list.push_back({"number an expert beyond the last", "G0 structure", [](Model& m) {
                    std::string& name = m.at(ExpertGate, here(m), 1).name;
                    name.replace(name.find(".experts.1."), 11, ".experts.99.");
                  }});
}

void add_routers(List& list) {
  const char* kGate = "G0 tensors";
  list.push_back(
      {"swap two router rows", kGate, [](Model& m) { swap_rows(m.at(Router, here(m)), 1, 2); }});
  list.push_back({"move a router row to the end", kGate, [](Model& m) {
                    for (int64_t e = 1; e + 1 < m.pool.experts_per_layer; ++e) {
                      swap_rows(m.at(Router, here(m)), e, e + 1);
                    }
                  }});
  list.push_back({"zero a router row", kGate, [](Model& m) {
                    std::ranges::fill(row(m.at(Router, here(m)), 1), std::byte{0});
                  }});
  list.push_back({"swap the routers of two layers", kGate,
                  [](Model& m) { swap_bytes(m.at(Router, here(m)), m.at(Router, there(m))); }});
  list.push_back({"drop a router row", "G0 structure", [](Model& m) {
                    LooseTensor& router = m.at(Router, here(m));
                    router.bytes.resize(router.bytes.size() - row(router, 0).size());
                    router.shape[0] -= 1;
                  }});
}

void add_others(List& list) {
  const char* kGate = "G0 tensors";
  list.push_back({"flip the lowest bit of a norm", kGate,
                  [](Model& m) { flip(m.at(MlpNorm, here(m)), 0, 0); }});
  list.push_back({"swap the norms of two layers", kGate,
                  [](Model& m) { swap_bytes(m.at(MlpNorm, here(m)), m.at(MlpNorm, there(m))); }});
  list.push_back({"delete a norm", "G0 structure",
                  [](Model& m) { m.erase(m.at(AttentionNorm, here(m)).name); }});
  list.push_back({"put a norm into a matrix", "G0 structure", [](Model& m) {
                    m.at(FinalNorm).shape.insert(m.at(FinalNorm).shape.begin(), 1);
                  }});
  list.push_back({"swap keys and values", kGate,
                  [](Model& m) { swap_bytes(m.at(Key, here(m)), m.at(Value, here(m))); }});
  list.push_back({"transpose the queries under their shape", kGate,
                  [](Model& m) { transpose(m.at(Query, here(m)), false); }});
  list.push_back({"swap two rows of the embedding", kGate,
                  [](Model& m) { swap_rows(m.at(Embedding), 5, 6); }});
  list.push_back({"widen a norm's dtype", kGate, [](Model& m) { widen(m.at(MlpNorm, here(m))); }});
  list.push_back({"add a tensor nobody knows", "G0 structure", [](Model& m) {
                    LooseTensor extra = m.at(FinalNorm);
                    extra.name = "model.extra.weight";
                    m.add(extra);
                  }});
}

void add_closed(List& list) {
  const char* kGate = "G1 closed";
  list.push_back({"leave a foreign slot open", kGate,
                  [](Model& m) { m.floats(names::router_visibility(1))[0] = 1; }});
  list.push_back({"leave a foreign slot hardly open", kGate, [](Model& m) {
                    m.floats(names::router_visibility(1))[0] =
                        std::numeric_limits<float>::denorm_min();
                  }});
  list.push_back({"a trajectory gain that is not zero", kGate,
                  [](Model& m) { m.floats(names::trajectory_gain(1))[0] = 0.01F; }});
  list.push_back({"a pool bias that is not zero", kGate,
                  [](Model& m) { m.floats(names::kPoolBias)[1] = -0.5F; }});
}

void add_pool_tensors(List& list) {
  const char* kGate = "G0 start values";
  list.push_back({"swap two foreign router rows", kGate,
                  [](Model& m) { swap_rows(m.at(names::router_weight(1)), 0, 1); }});
  list.push_back({"zero the foreign router rows", kGate,
                  [](Model& m) { zero(m.at(names::router_weight(1))); }});
  list.push_back({"zero an expert's trajectory key", kGate,
                  [](Model& m) { std::ranges::fill(row(m.at(names::kKey), 1), std::byte{0}); }});
  const char* kShape = "G0 structure";
  list.push_back({"a foreign row of NaN", kShape,
                  [](Model& m) { m.floats(names::router_weight(1))[0] = kNan; }});
  list.push_back(
      {"a beta of NaN", kShape, [](Model& m) { m.floats(names::router_bias(1))[0] = kNan; }});
  list.push_back({"an infinite scale", kShape, [](Model& m) {
                    m.floats(names::router_scale(1))[0] = std::numeric_limits<float>::infinity();
                  }});
  list.push_back({"a decay of NaN", kShape, [](Model& m) { m.floats(names::kDecay)[0] = kNan; }});
  list.push_back({"delete the pool bias", kShape, [](Model& m) { m.erase(names::kPoolBias); }});
  list.push_back({"transpose foreign rows with their shape", kShape,
                  [](Model& m) { transpose(m.at(names::router_weight(1)), true); }});
  list.push_back({"foreign rows in bfloat16", kShape,
                  [](Model& m) { narrow(m.at(names::router_weight(1))); }});
  list.push_back({"add a pool tensor nobody knows", kShape, [](Model& m) {
                    LooseTensor extra = m.at(names::kPoolBias);
                    extra.name = "moue.layers.99.router.bias";
                    m.add(extra);
                  }});
}

nlohmann::ordered_json& slots(Model& model) { return model.config["moue"]["slots"][1]; }

void add_block(List& list) {
  const char* kGate = "G0 structure";
  list.push_back({"list another foreign expert than the row's", "G0 start values", [](Model& m) {
                    const std::vector<int32_t>& listed = m.pool.slots[1];
                    const std::set<int32_t> taken(listed.begin(), listed.end());
                    int32_t other = 0;
                    while (taken.contains(other)) ++other;
                    // Where a layer lists every expert, two of them change places.
                    const size_t first = static_cast<size_t>(m.pool.experts_per_layer);
                    if (other < m.pool.num_physical()) {
                      slots(m)[first] = other;
                    } else {
                      std::swap(slots(m)[first], slots(m)[first + 1]);
                    }
                  }});
  list.push_back({"list a foreign expert twice", kGate,
                  [](Model& m) { slots(m).back() = slots(m)[slots(m).size() - 2]; }});
  list.push_back({"list an expert beyond the last", kGate,
                  [](Model& m) { slots(m).back() = m.pool.num_physical(); }});
  list.push_back({"list a foreign expert before the own", kGate,
                  [](Model& m) { std::swap(slots(m).front(), slots(m).back()); }});
  list.push_back(
      {"forget the last slot", kGate, [](Model& m) { slots(m).erase(slots(m).size() - 1); }});
  list.push_back({"exchange two homes", kGate, [](Model& m) {
                    auto& home = m.config["moue"]["home"];
                    std::swap(home[0], home[1]);
                  }});
  list.push_back({"a wrong number of experts a layer", kGate, [](Model& m) {
                    m.config["moue"]["experts_per_layer"] = m.pool.experts_per_layer - 1;
                  }});
  list.push_back({"a wrong MoE layer", kGate, [](Model& m) {
                    m.config["moue"]["moe_layers"].back() = m.pool.moe_layers.back() + 1;
                  }});
  list.push_back({"another state_dim than the tensors'", kGate,
                  [](Model& m) { m.config["moue"]["state_dim"] = m.pool.state_dim + 1; }});
  list.push_back({"no block", kGate, [](Model& m) {
                    m.config.erase("moue");
                    m.config["architectures"] = m.pool.base_architectures;
                    m.config["model_type"] = m.pool.base_model_type;
                  }});
}

void add_files(List& list) {
  list.push_back({"one expert a token less", "G0 config", [](Model& m) {
                    auto& k = m.config["num_experts_per_tok"];
                    k = k.get<int64_t>() - 1;
                  }});
  list.push_back({"another eps in config.json", "G0 config",
                  [](Model& m) { m.config["rms_norm_eps"] = 1e-3; }});
  list.push_back({"forget a file that is not weights", "G0 other files",
                  [](Model& m) { std::erase(m.other_files, "generation_config.json"); }});
}

}  // namespace

std::vector<Mutant> mutants() {
  List list;
  add_experts(list);
  add_routers(list);
  add_others(list);
  add_closed(list);
  add_pool_tensors(list);
  add_block(list);
  add_files(list);
  return list;
}

void write_mutant(const Mutant& mutant, const fs::path& converted, const fs::path& to) {
  LooseModel model(converted);
  mutant.change(model);
  model.write(to);
}

}  // namespace moue::test
