// RMSNorm on the CPU: the reference.
#include "kernels/rms_norm.h"

#include <algorithm>

#include "kernels/rows.h"

namespace moue::kernels {
namespace {

template <class T>
MOUE_CLONES void row_forward(const T* x, const T* gain, T* out, float* rstd, int64_t width,
                             float eps) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < width; ++i) sum += load(x[i]) * load(x[i]);
  const float r = 1.0f / std::sqrt(sum / static_cast<float>(width) + eps);
  *rstd = r;
  if (gain) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      T rounded;
      store(rounded, load(x[i]) * r);
      store(out[i], load(gain[i]) * load(rounded));
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) store(out[i], load(x[i]) * r);
  }
}

// dx = r * (w - xhat * mean(w * xhat)), w = dout * gain, xhat = x * r
template <class T>
MOUE_CLONES void row_backward(const T* x, const T* gain, const T* dout, float r, T* dx,
                              float* dgain, int64_t width) {
  float dot = 0;
#pragma omp simd reduction(+ : dot)
  for (int64_t i = 0; i < width; ++i) {
    dot += load(dout[i]) * (gain ? load(gain[i]) : 1.0f) * load(x[i]);
  }
  const float mean = dot * r * r / static_cast<float>(width);
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    store(dx[i], r * (load(dout[i]) * (gain ? load(gain[i]) : 1.0f) - load(x[i]) * mean));
  }
  if (!dgain) return;
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) dgain[i] += load(dout[i]) * load(x[i]) * r;
}

}  // namespace

int64_t rms_norm_partials(int64_t rows) { return (rows + kRmsNormRows - 1) / kRmsNormRows; }

void rms_norm_forward(const RmsNormForward& a, Where where) {
  if (where.cuda) return cuda::rms_norm_forward(a, where.stream);
  with_element(a.element, [&](auto tag) {
    using T = decltype(tag);
    const T* x = static_cast<const T*>(a.x);
    T* out = static_cast<T*>(a.out);
    for_rows(a.rows, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        row_forward<T>(x + i * a.width, static_cast<const T*>(a.gain), out + i * a.width,
                       a.rstd + i, a.width, a.eps);
      }
    });
  });
}

void rms_norm_backward(const RmsNormBackward& a, Where where) {
  if (where.cuda) return cuda::rms_norm_backward(a, where.stream);
  const int64_t blocks = rms_norm_partials(a.rows);
  with_element(a.element, [&](auto tag) {
    using T = decltype(tag);
    for_rows(blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        float* dgain = a.dgain ? a.partial + block * a.width : nullptr;
        if (dgain) std::fill_n(dgain, a.width, 0.0f);
        for (int64_t i = block * kRmsNormRows; i < std::min(a.rows, (block + 1) * kRmsNormRows);
             ++i) {
          row_backward<T>(static_cast<const T*>(a.x) + i * a.width, static_cast<const T*>(a.gain),
                          static_cast<const T*>(a.dout) + i * a.width, a.rstd[i],
                          static_cast<T*>(a.dx) + i * a.width, dgain, a.width);
        }
      }
    });
  });
  if (!a.dgain) return;
  std::fill_n(a.dgain, a.width, 0.0f);
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t i = 0; i < a.width; ++i) a.dgain[i] += a.partial[block * a.width + i];
  }
}

}  // namespace moue::kernels
