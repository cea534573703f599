// Expands a family's rows to the tensors of an untrained model.
#include "family/initial.h"

#include <algorithm>

#include "family/matching.h"
#include "moue/error.h"

namespace moue {

namespace {

Start start_of(Role role) {
  using enum Role;
  switch (role) {
    case FinalNorm:
    case AttentionNorm:
    case MlpNorm:
    case QueryNorm:
    case KeyNorm:
    case QueryDownNorm:
    case KeyValueDownNorm:
    case LinearNorm:
      return Start::One;
    case FinalNormBias:
    case AttentionNormBias:
    case MlpNormBias:
    case OutputHeadBias:
    case QueryBias:
    case KeyBias:
    case ValueBias:
    case AttentionOutputBias:
    case QueryDownBias:
    case KeyValueDownBias:
    case AttentionExpertsBias:
    case RouterCorrection:
    case ExpertGateBias:
    case ExpertUpBias:
    case ExpertDownBias:
    case ExpertGateUpBiasPairs:
    case MlpBias:
      return Start::Zero;
    default:
      return Start::Normal;
  }
}

bool has(const Row& row, std::string_view placeholder) {
  return row.name.find(placeholder) != std::string_view::npos;
}

bool is_last(const Row& row) {
  return row.role == Role::FinalNorm || row.role == Role::FinalNormBias ||
         row.role == Role::OutputHead || row.role == Role::OutputHeadBias;
}

const Form& plain_form(const Family& family) {
  for (const Form& form : family.forms) {
    if (std::ranges::all_of(form.rows, [](const Row& r) { return r.packing == Packing::Plain; }))
      return form;
  }
  fail("family", "converters/{}.cpp has no form without packing, wanted one to write", family.name);
}

class Expansion {
 public:
  Expansion(const Family& family, const ModelSpec& spec)
      : spec_(spec), geometry_(geometry_of(spec)) {
    for (const std::vector<Row>* rows : {&family.tensors, &plain_form(family).rows}) {
      for (const Row& row : *rows) {
        if (row.role != Role::Ignored && stands(row, spec) && is_required(row, spec))
          rows_.push_back(&row);
      }
    }
  }

  std::vector<InitialTensor> tensors() {
    for (const Row* row : rows_) {
      if (!has(*row, "{L}") && !is_last(*row)) add(*row, -1, -1);
    }
    for (int64_t layer = 0; layer < spec_.layers; ++layer) add_layer(layer);
    for (const Row* row : rows_) {
      if (!has(*row, "{L}") && is_last(*row)) add(*row, -1, -1);
    }
    return std::move(tensors_);
  }

 private:
  void add_layer(int64_t layer) {
    std::vector<const Row*> of_experts;
    for (const Row* row : rows_) {
      if (!has(*row, "{L}") || !in_layer(row->layers, geometry_, layer)) continue;
      if (has(*row, "{E}")) {
        of_experts.push_back(row);
      } else {
        add(*row, layer, -1);
      }
    }
    for (int64_t expert = 0; !of_experts.empty() && expert < spec_.experts; ++expert) {
      for (const Row* row : of_experts) add(*row, layer, expert);
    }
  }

  void add(const Row& row, int64_t layer, int64_t expert) {
    tensors_.push_back({expand_name(row.name, layer, expert), expand_shape(row.shape, geometry_),
                        start_of(row.role), row.role == Role::RouterCorrection});
  }

  const ModelSpec& spec_;
  Geometry geometry_;
  std::vector<const Row*> rows_;
  std::vector<InitialTensor> tensors_;
};

}  // namespace

std::vector<InitialTensor> initial_tensors(const Family& family, const ModelSpec& spec) {
  return Expansion(family, spec).tensors();
}

}  // namespace moue
