// A block of the model beside a plain formulation of it in float64, forward and backward.
#include "support/torch_blocks.h"

#include <algorithm>
#include <cmath>

#include "core/philox.h"
#include "model/torch.h"
#include "support/torch_compare.h"

namespace moue::test {
namespace {

std::vector<at::Tensor> leaves(const std::vector<at::Tensor>& inputs, at::ScalarType first,
                               at::ScalarType then) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& x : inputs) {
    result.push_back(x.defined() ? x.detach().to(first).to(then, false, true).requires_grad_(true)
                                 : x);
  }
  return result;
}

at::Tensor run(const BlockFunction& block, const std::vector<at::Tensor>& inputs) {
  const at::Tensor out = block(inputs);
  at::Tensor weight = random_tensor(out.sizes().vec(), 77);
  out.backward(weight.to(out.scalar_type()));
  return out.detach();
}

}  // namespace

at::Tensor random_tensor(std::vector<int64_t> shape, uint64_t seed, double scale) {
  at::Tensor x = at::empty(shape, at::kDouble);
  double* values = x.data_ptr<double>();
  for (int64_t i = 0; i < x.numel(); ++i) {
    const PhiloxBlock draw = philox(seed, {static_cast<uint32_t>(i), 0, 0, 0});
    const double u = (draw[0] + 1.0) / 4294967297.0, v = draw[1] / 4294967296.0;
    values[i] = scale * std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * v);
  }
  return x;
}

double BlockErrors::worst_gradient() const {
  return gradients.empty() ? 0 : *std::max_element(gradients.begin(), gradients.end());
}

BlockErrors compare_blocks(const BlockFunction& ours, const BlockFunction& plain,
                           const std::vector<at::Tensor>& inputs, at::ScalarType dtype) {
  const std::vector<at::Tensor> narrow = leaves(inputs, dtype, dtype),
                                wide = leaves(inputs, dtype, at::kDouble);
  const at::Tensor seen = run(ours, narrow), wanted = run(plain, wide);
  BlockErrors errors;
  errors.output = relative_error(seen, wanted);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].defined()) continue;
    const at::Tensor gradient =
        narrow[i].grad().defined() ? narrow[i].grad() : at::zeros_like(narrow[i]);
    errors.gradients.push_back(relative_error(gradient, wide[i].grad()));
  }
  return errors;
}

at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           double scale, int64_t window, const at::Tensor& sinks) {
  const int64_t B = q.size(0), H = q.size(1), L = q.size(2), groups = H / k.size(1);
  const at::Tensor keys = k.repeat_interleave(groups, 1), values = v.repeat_interleave(groups, 1);
  at::Tensor score = at::matmul(q, keys.transpose(2, 3)) * scale;
  at::Tensor hidden = at::ones({L, L}, at::kBool);
  for (int64_t i = 0; i < L; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      if (window <= 0 || i - j < window) hidden.index_put_({at::tensor(i), at::tensor(j)}, false);
    }
  }
  score = score.masked_fill(hidden, -std::numeric_limits<double>::infinity());
  if (sinks.defined()) {
    score = at::cat({score, sinks.view({1, H, 1, 1}).expand({B, H, L, 1})}, 3);
  }
  const at::Tensor share = score.softmax(3).narrow(3, 0, L);
  return at::matmul(share, values).transpose(1, 2).reshape({B * L, H * v.size(3)});
}

at::Tensor plain_rope(const at::Tensor& x, double theta, int64_t begin, int64_t width,
                      bool interleaved) {
  const int64_t L = x.size(1), half = width / 2;
  const at::Tensor power = at::arange(half, at::kDouble) * (-2.0 / static_cast<double>(width));
  const at::Tensor angle =
      at::arange(L, at::kDouble).unsqueeze(1) * at::pow(at::Scalar(theta), power);
  const at::Tensor turn = at::polar(at::ones_like(angle), angle).unsqueeze(1);  // [L, 1, half]
  const at::Tensor part = x.narrow(3, begin, width);
  const at::Tensor pairs = interleaved
                               ? part.reshape({x.size(0), L, x.size(2), half, 2})
                               : part.reshape({x.size(0), L, x.size(2), 2, half}).transpose(3, 4);
  const at::Tensor turned = at::view_as_real(at::view_as_complex(pairs.contiguous()) * turn);
  const at::Tensor back = interleaved ? turned : turned.transpose(3, 4);
  const int64_t end = begin + width;
  return at::cat(
             {x.narrow(3, 0, begin), back.reshape(part.sizes()), x.narrow(3, end, x.size(3) - end)},
             3)
      .transpose(1, 2);
}

at::Tensor plain_rms(const at::Tensor& x, const at::Tensor& gain, double eps) {
  return x / (x.square().mean(-1, true) + eps).sqrt() * gain;
}

}  // namespace moue::test
