// Products of float32 matrices in AVX-512: tiles of 12 x 32 in registers, b packed, a where it is
// transposed.
#include "kernels/product.h"

// GCC 12 takes the intrinsics' deliberately undefined registers for a mistake (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <utility>

#define MOUE_AVX512 __attribute__((target("avx512f")))

namespace moue::kernels {
namespace {

constexpr int64_t kLane = 16;            // floats of a register
constexpr int64_t kColumns = 2 * kLane;  // of a tile: 24 registers of sums, 2 of b, 1 of a
constexpr int64_t kDepth = 192;          // of a packed block: 24 KB of b stay in the first cache,
constexpr int64_t kTall = 12 * kProductRows;  // and so many rows of a beside
constexpr int64_t kWide = 16 * kColumns;      // so many columns of b in the second
constexpr std::align_val_t kLine{64};

__mmask16 first(int64_t count) {
  return static_cast<__mmask16>((1U << std::clamp<int64_t>(count, 0, kLane)) - 1);
}

struct Freed {
  void operator()(float* p) const { ::operator delete[](p, kLine); }
};

struct Packed {
  std::unique_ptr<float[], Freed> floats{new (kLine) float[kDepth * (kWide + kTall)]};
  float* b() { return floats.get(); }
  float* a() { return floats.get() + kDepth * kWide; }
};

struct Tile {
  const float* a;
  int64_t a_row, a_step;  // from row to row, from one k to the next
  const float* b;         // packed
  float* out;
  int64_t out_stride, columns, depth;
  bool add;
};

template <int kRows>
MOUE_AVX512 void multiply_tile(const Tile& t) {
  __m512 sum[kRows][2];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
  const float *a = t.a, *b = t.b;
  for (int64_t k = 0; k < t.depth; ++k, a += t.a_step, b += kColumns) {
    const __m512 left = _mm512_load_ps(b), right = _mm512_load_ps(b + kLane);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const __m512 x = _mm512_set1_ps(a[r * t.a_row]);
      sum[r][0] = _mm512_fmadd_ps(x, left, sum[r][0]);
      sum[r][1] = _mm512_fmadd_ps(x, right, sum[r][1]);
    }
  }
  const __mmask16 mask[2] = {first(t.columns), first(t.columns - kLane)};
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    for (int half = 0; half < 2; ++half) {
      float* out = t.out + r * t.out_stride + half * kLane;
      const __m512 old = t.add ? _mm512_maskz_loadu_ps(mask[half], out) : _mm512_setzero_ps();
      _mm512_mask_storeu_ps(out, mask[half], _mm512_add_ps(old, sum[r][half]));
    }
  }
}

template <size_t... kIndex>
constexpr auto tiles(std::index_sequence<kIndex...>) {
  return std::array{&multiply_tile<static_cast<int>(kIndex) + 1>...};
}
constexpr auto kTiles = tiles(std::make_index_sequence<kProductRows>());

// `count` rows of 16 floats, `stride` apart, become columns of `out`.
MOUE_AVX512 void transpose(const float* in, int64_t stride, int64_t count, float* out) {
  __m512 r[kLane], t[kLane];
#pragma GCC unroll 16
  for (int i = 0; i < kLane; ++i) r[i] = _mm512_maskz_loadu_ps(first(count), in + i * stride);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLane; ++i)
    if (i < count) _mm512_store_ps(out + i * kColumns, r[i]);
}

// Up to 16 columns of b from column j, rows k0 on; missing columns are left as they are: what a
// tile makes of them is not stored.
MOUE_AVX512 void pack_half(const Operand& b, int64_t k0, int64_t depth, int64_t j, int64_t columns,
                           float* out) {
  if (!b.transposed) {
    const float* in = b.data + k0 * b.stride + j;
    for (int64_t k = 0; k < depth; ++k, in += b.stride)
      _mm512_store_ps(out + k * kColumns, _mm512_maskz_loadu_ps(first(columns), in));
    return;
  }
  const float* in = b.data + j * b.stride + k0;
  if (columns >= kLane) {
    for (int64_t k = 0; k < depth; k += kLane)
      transpose(in + k, b.stride, depth - k, out + k * kColumns);
    return;
  }
  for (int64_t k = 0; k < depth; ++k)
    for (int64_t x = 0; x < kLane; ++x)
      out[k * kColumns + x] = x < columns ? in[x * b.stride + k] : 0.0f;
}

// Panels of 32 columns, each [depth, 32].
void pack_b(const Operand& b, int64_t k0, int64_t depth, int64_t j0, int64_t columns, float* out) {
  for (int64_t j = 0; j < columns; j += kColumns, out += depth * kColumns) {
    pack_half(b, k0, depth, j0 + j, columns - j, out);
    pack_half(b, k0, depth, j0 + j + kLane, columns - j - kLane, out + kLane);
  }
}

// Panels of 12 rows of a transposed a, each [depth, 12].
MOUE_AVX512 void pack_a(const Operand& a, int64_t k0, int64_t depth, int64_t i0, int64_t rows,
                        float* out) {
  const float* in = a.data + k0 * a.stride + i0;
  for (int64_t k = 0; k < depth; ++k, in += a.stride, out += kProductRows) {
    for (int64_t i = 0; i < rows; i += kProductRows) {
      const __mmask16 mask = first(std::min(kProductRows, rows - i));
      _mm512_mask_storeu_ps(out + i * depth, mask, _mm512_maskz_loadu_ps(mask, in + i));
    }
  }
}

struct Block {
  int64_t k0, depth, j0, columns, i0, rows;
};

void multiply_block(const Product& p, const Block& at, Packed& packed) {
  Tile t{};
  t.depth = at.depth;
  t.out_stride = p.out_stride;
  t.add = p.add || at.k0 > 0;
  t.a_row = p.a.transposed ? 1 : p.a.stride;
  t.a_step = p.a.transposed ? kProductRows : 1;
  for (int64_t j = 0; j < at.columns; j += kColumns) {
    t.b = packed.b() + j * at.depth;
    t.columns = std::min(kColumns, at.columns - j);
    for (int64_t i = 0; i < at.rows; i += kProductRows) {
      t.a =
          p.a.transposed ? packed.a() + i * at.depth : p.a.data + (at.i0 + i) * p.a.stride + at.k0;
      t.out = p.out + (at.i0 + i) * p.out_stride + at.j0 + j;
      kTiles[std::min(kProductRows, at.rows - i) - 1](t);
    }
  }
}

}  // namespace

bool has_product() {
  static const bool has = __builtin_cpu_supports("avx512f");
  return has;
}

void product(const Product& p) {
  thread_local Packed packed;
  if (p.k == 0 && !p.add)
    for (int64_t i = 0; i < p.m; ++i) std::fill_n(p.out + i * p.out_stride, p.n, 0.0f);
  if (p.k == 0) return;
  const int64_t parts = (p.k + kDepth - 1) / kDepth, step = (p.k + parts - 1) / parts;
  for (int64_t j0 = 0; j0 < p.n; j0 += kWide) {
    const int64_t columns = std::min(kWide, p.n - j0);
    for (int64_t k0 = 0; k0 < p.k; k0 += step) {
      const int64_t depth = std::min(step, p.k - k0);
      pack_b(p.b, k0, depth, j0, columns, packed.b());
      for (int64_t i0 = 0; i0 < p.m; i0 += kTall) {
        const int64_t rows = std::min(kTall, p.m - i0);
        if (p.a.transposed) pack_a(p.a, k0, depth, i0, rows, packed.a());
        multiply_block(p, {k0, depth, j0, columns, i0, rows}, packed);
      }
    }
  }
}

}  // namespace moue::kernels
