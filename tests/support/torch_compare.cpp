// Tensors of files and of models, compared.
#include "support/torch_compare.h"

#include <limits>

#include "model/torch.h"

namespace moue::test {

std::vector<std::filesystem::path> golden_families() {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator("tests/golden/families")) {
    if (entry.is_directory()) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

at::Tensor read_tensor(const SafetensorsFile& file, const std::string& name) {
  const TensorInfo& info = file.at(name);
  if (info.dtype == Dtype::I64) {
    at::Tensor tensor = at::empty(info.shape, at::kLong);
    file.read(info, 0, {static_cast<std::byte*>(tensor.data_ptr()), info.bytes});
    return tensor;
  }
  const std::vector<double> values = file.values(name);
  return at::tensor(values, at::kDouble).view(info.shape);
}

double relative_error(const at::Tensor& seen, const at::Tensor& wanted) {
  if (seen.sizes() != wanted.sizes()) return std::numeric_limits<double>::infinity();
  if (wanted.numel() == 0) return 0;
  const double largest = wanted.to(at::kDouble).abs().max().item<double>();
  const double error =
      (seen.to(at::kDouble).cpu() - wanted.to(at::kDouble)).abs().max().item<double>();
  if (std::isnan(error)) return std::numeric_limits<double>::infinity();
  if (largest == 0) return error == 0 ? 0 : std::numeric_limits<double>::infinity();
  return error / largest;
}

bool same_numbers(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() && a.eq(b).all().item<bool>();
}

std::unique_ptr<Model> open_model(const std::filesystem::path& directory,
                                  const ModelOptions& options) {
  return Model::open(open_checkpoint(directory), options);
}

at::Tensor logits_of(Model& model, const at::Tensor& tokens_BT) {
  const at::NoGradGuard no_grad;
  Pass pass;
  return model.logits(tokens_BT, pass);
}

std::map<std::string, at::Tensor> gradients(Model& model) {
  std::map<std::string, at::Tensor> result;
  for (const Parameter& parameter : model.parameters()) {
    for (const DiskTensor& disk : parameter.disk) {
      const Slice& slice = disk.slice;
      at::Tensor& whole = result[disk.name];
      if (!whole.defined()) whole = at::zeros(slice.tensor->shape, at::kFloat);
      const at::Tensor piece =
          parameter.grad.flatten().narrow(0, disk.offset, slice.rows * slice.columns).cpu();
      whole
          .as_strided({slice.rows, slice.columns}, {slice.row_stride, slice.column_stride},
                      slice.offset)
          .copy_(piece.view({slice.rows, slice.columns}));
    }
  }
  return result;
}

}  // namespace moue::test
