// AdamW on the CPU: the reference.
#include "kernels/adamw.h"

#include <algorithm>

#include "kernels/rows.h"

namespace moue::kernels {
namespace {

struct Constants {
  float beta1, beta2, rest1, rest2, scale, step, root, eps;
};

MOUE_CLONES void update(float* master, const float* grad, float* m, float* v, int64_t size,
                        float keep, const Constants& c) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) {
    const float g = c.scale * grad[i];
    m[i] = c.beta1 * m[i] + c.rest1 * g;
    v[i] = c.beta2 * v[i] + c.rest2 * g * g;
    master[i] = keep * master[i] - c.step * m[i] / (std::sqrt(v[i]) * c.root + c.eps);
  }
}

constexpr int64_t kBlocks = 64;  // of Philox at a time, for two elements each

// Philox4x32-10 as in core/philox.h, round by round over many counters so that it vectorises.
MOUE_CLONES void draw(const Rounding& r, uint64_t block, int64_t blocks, uint32_t* one,
                      uint32_t* other) {
  uint32_t c0[kBlocks], c1[kBlocks], c2[kBlocks], c3[kBlocks];
  for (int64_t i = 0; i < blocks; ++i) {
    c0[i] = static_cast<uint32_t>(block + i);
    c1[i] = static_cast<uint32_t>((block + i) >> 32);
    c2[i] = r.tensor;
    c3[i] = r.step;
  }
  uint32_t low = static_cast<uint32_t>(r.key), high = static_cast<uint32_t>(r.key >> 32);
  for (int round = 0; round < 10; ++round, low += 0x9E3779B9, high += 0xBB67AE85) {
#pragma omp simd
    for (int64_t i = 0; i < blocks; ++i) {
      const uint64_t a = uint64_t{0xD2511F53} * c0[i], b = uint64_t{0xCD9E8D57} * c2[i];
      c0[i] = static_cast<uint32_t>(b >> 32) ^ c1[i] ^ low;
      c1[i] = static_cast<uint32_t>(b);
      c2[i] = static_cast<uint32_t>(a >> 32) ^ c3[i] ^ high;
      c3[i] = static_cast<uint32_t>(a);
    }
  }
  for (int64_t i = 0; i < blocks; ++i) {
    one[2 * i] = c0[i];
    other[2 * i] = c1[i];
    one[2 * i + 1] = c2[i];
    other[2 * i + 1] = c3[i];
  }
}

inline void store_rounded(float& to, float x, uint32_t) { to = x; }
inline void store_rounded(Bf16& to, float x, uint32_t half) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  to.bits = static_cast<uint16_t>(x != x ? 0x7fc0u : (bits + half) >> 16);
}

template <class W, class M>
MOUE_CLONES void update_rounded(W* master, const float* grad, M* m, M* v, int64_t size, float keep,
                                const Constants& c, const uint32_t* one, const uint32_t* other) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) {
    const float g = c.scale * grad[i];
    const float first = c.beta1 * load(m[i]) + c.rest1 * g;
    const float second = c.beta2 * load(v[i]) + c.rest2 * g * g;
    const float step = c.step * first / (std::sqrt(second) * c.root + c.eps);
    store_rounded(master[i], keep * load(master[i]) - step, one[i] & 0xffffu);
    store_rounded(m[i], first, one[i] >> 16);
    store_rounded(v[i], second, other[i] & 0xffffu);
  }
}

// Elements [at, at + size) of the tensor.
template <class W, class M>
void update_piece(const AdamwArgs& a, int64_t at, int64_t size, float keep, const Constants& c) {
  W* master = static_cast<W*>(a.master) + at;
  M *m = static_cast<M*>(a.m) + at, *v = static_cast<M*>(a.v) + at;
  const float* grad = a.grad + at;
  if constexpr (sizeof(W) == sizeof(float) && sizeof(M) == sizeof(float)) {
    update(master, grad, m, v, size, keep, c);
  } else {
    uint32_t one[2 * kBlocks], other[2 * kBlocks];
    for (int64_t done = 0; done < size;) {
      const uint64_t element = a.rounding.first + static_cast<uint64_t>(at + done);
      const auto odd = static_cast<int64_t>(element % 2);  // its block begins an element before
      const int64_t part = std::min(2 * kBlocks - odd, size - done);
      draw(a.rounding, element / 2, (odd + part + 1) / 2, one, other);
      update_rounded(master + done, grad + done, m + done, v + done, part, keep, c, one + odd,
                     other + odd);
      done += part;
    }
  }
}

MOUE_CLONES double block_squares(const float* x, int64_t size) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < size; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

}  // namespace

void adamw(const AdamwArgs& a, Where where) {
  if (where.cuda) return cuda::adamw(a, where.stream);
  const Constants c{static_cast<float>(a.beta1),
                    static_cast<float>(a.beta2),
                    static_cast<float>(1 - a.beta1),
                    static_cast<float>(1 - a.beta2),
                    static_cast<float>(a.scale),
                    static_cast<float>(a.lr / a.bias1),
                    static_cast<float>(1 / std::sqrt(a.bias2)),
                    static_cast<float>(a.eps)};
  const int64_t piece = a.row_decay ? a.row_size : kSquaresBlock;
  const int64_t pieces = (a.size + piece - 1) / piece;
  with_element(a.weights, [&](auto weight) {
    with_element(a.moments, [&](auto moment) {
      for_rows(pieces, 1, [&](int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; ++p) {
          const double decay = a.row_decay ? a.row_decay[p] : a.decay;
          update_piece<decltype(weight), decltype(moment)>(a, p * piece,
                                                           std::min(piece, a.size - p * piece),
                                                           static_cast<float>(1 - a.lr * decay), c);
        }
      });
    });
  });
}

int64_t sum_of_squares_partials(int64_t size) { return (size + kSquaresBlock - 1) / kSquaresBlock; }

void sum_of_squares(const float* x, int64_t size, double* partial, double* result, Where where) {
  if (where.cuda) return cuda::sum_of_squares(x, size, partial, result, where.stream);
  const int64_t blocks = sum_of_squares_partials(size);
  for_rows(blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      partial[b] =
          block_squares(x + b * kSquaresBlock, std::min(kSquaresBlock, size - b * kSquaresBlock));
    }
  });
  *result = 0;
  for (int64_t b = 0; b < blocks; ++b) *result += partial[b];
}

}  // namespace moue::kernels
