// Causal softmax attention on the CPU: a key-value head of a sequence is one thread's work.
#include "kernels/attention.h"

#include <algorithm>
#include <vector>

#include "kernels/product.h"
#include "kernels/rows.h"

namespace moue::kernels {
namespace {

constexpr int64_t kQueries = 5 * kProductRows;  // of a block

// Rows [first, first + count) of queries, keys [from, to) that any of them sees.
struct Block {
  int64_t first, count, from, to;
  int64_t keys() const { return to - from; }
};

template <class F>
void for_blocks(const AttentionShape& s, F&& f) {
  for (int64_t first = 0; first < s.length; first += kQueries) {
    const int64_t count = std::min(kQueries, s.length - first);
    f(Block{first, count, s.window > 0 ? std::max<int64_t>(0, first - s.window + 1) : 0,
            first + count});
  }
}

// Keys of the block that query `row` of it sees: [begin, end), counted from block.from.
std::pair<int64_t, int64_t> seen(const AttentionShape& s, const Block& block, int64_t row) {
  const int64_t at = block.first + row, end = at + 1 - block.from;
  return {s.window > 0 ? std::max<int64_t>(0, end - s.window) : 0, end};
}

template <class T>
T* row_of(const HeadRows<T>& x, int64_t batch, int64_t head, int64_t row) {
  return x.data + batch * x.batch + head * x.head + row * x.row;
}

template <class T>
Operand operand(const HeadRows<T>& x, int64_t batch, int64_t head, int64_t row, bool transposed) {
  return {row_of(x, batch, head, row), x.row, transposed};
}

MOUE_CLONES float largest(const float* x, int64_t size) {
  float most = x[0];
#pragma omp simd reduction(max : most)
  for (int64_t i = 0; i < size; ++i) most = x[i] > most ? x[i] : most;
  return most;
}

// x = exp(scale x - shift), and the sum.
MOUE_CLONES float exponentials(float* x, int64_t size, float scale, float shift) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < size; ++i) {
    x[i] = fast_exp(scale * x[i] - shift);
    sum += x[i];
  }
  return sum;
}

MOUE_CLONES void multiply_by(float* x, int64_t size, float factor) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) x[i] *= factor;
}

MOUE_CLONES float dot(const float* x, const float* y, int64_t size) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < size; ++i) sum += x[i] * y[i];
  return sum;
}

// dx = scale p (dx - mean)
MOUE_CLONES void softmax_gradient(const float* p, float* dx, int64_t size, float mean,
                                  float scale) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) dx[i] = scale * p[i] * (dx[i] - mean);
}

// What lies outside [begin, end) of a row of `size` is 0.
void clear_outside(float* row, int64_t begin, int64_t end, int64_t size) {
  std::fill(row, row + begin, 0.0f);
  std::fill(row + end, row + size, 0.0f);
}

struct Scratch {
  explicit Scratch(const AttentionShape& s) : p(kQueries * s.length), dp(kQueries * s.length) {}
  std::vector<float> p, dp;
};

// A query head of a sequence, forward.
void forward_head(const AttentionForward& a, int64_t batch, int64_t head, Scratch& scratch) {
  const AttentionShape& s = a.shape;
  const int64_t kv = head / (s.heads / s.kv_heads);
  float* norm = a.norm + (batch * s.heads + head) * s.length;
  for_blocks(s, [&](const Block& block) {
    const int64_t keys = block.keys();
    product({operand(a.q, batch, head, block.first, false),
             operand(a.k, batch, kv, block.from, true), scratch.p.data(), keys, false, block.count,
             keys, s.width});
    float rest[kQueries];
    for (int64_t r = 0; r < block.count; ++r) {
      float* p = scratch.p.data() + r * keys;
      const auto [begin, end] = seen(s, block, r);
      clear_outside(p, begin, end, keys);
      float top = s.scale * largest(p + begin, end - begin);
      if (a.sinks) top = std::max(top, a.sinks[head]);
      float sum = exponentials(p + begin, end - begin, s.scale, top);
      if (a.sinks) sum += fast_exp(a.sinks[head] - top);
      rest[r] = 1.0f / sum;
      norm[block.first + r] = top + std::log(sum);
    }
    float* out = row_of(a.out, batch, head, block.first);
    product({{scratch.p.data(), keys, false},
             operand(a.v, batch, kv, block.from, false),
             out,
             a.out.row,
             false,
             block.count,
             s.value_width,
             keys});
    for (int64_t r = 0; r < block.count; ++r)
      multiply_by(out + r * a.out.row, s.value_width, rest[r]);
  });
}

// Shares p and the gradients of their logits; returns the sink's.
float softmax_backward(const AttentionBackward& a, int64_t batch, int64_t head, const Block& block,
                       Scratch& scratch) {
  const AttentionShape& s = a.shape;
  const float* norm = a.norm + (batch * s.heads + head) * s.length + block.first;
  float dsink = 0;
  for (int64_t r = 0; r < block.count; ++r) {
    float *p = scratch.p.data() + r * block.keys(), *dp = scratch.dp.data() + r * block.keys();
    const auto [begin, end] = seen(s, block, r);
    clear_outside(p, begin, end, block.keys());
    clear_outside(dp, begin, end, block.keys());
    exponentials(p + begin, end - begin, s.scale, norm[r]);
    const float mean = dot(row_of(a.dout, batch, head, block.first + r),
                           row_of(a.out, batch, head, block.first + r), s.value_width);
    softmax_gradient(p + begin, dp + begin, end - begin, mean, s.scale);
    if (a.sinks) dsink -= fast_exp(a.sinks[head] - norm[r]) * mean;
  }
  return dsink;
}

// A query head of a sequence, backward: adds to the gradients of its key-value head.
void backward_head(const AttentionBackward& a, int64_t batch, int64_t head, Scratch& scratch) {
  const AttentionShape& s = a.shape;
  const int64_t kv = head / (s.heads / s.kv_heads);
  float dsink = 0;
  for_blocks(s, [&](const Block& b) {
    const int64_t keys = b.keys();
    const Operand q = operand(a.q, batch, head, b.first, false),
                  dout = operand(a.dout, batch, head, b.first, false);
    float *p = scratch.p.data(), *dp = scratch.dp.data();
    product({q, operand(a.k, batch, kv, b.from, true), p, keys, false, b.count, keys, s.width});
    product({dout, operand(a.v, batch, kv, b.from, true), dp, keys, false, b.count, keys,
             s.value_width});
    dsink += softmax_backward(a, batch, head, b, scratch);
    product({{dp, keys, false},
             operand(a.k, batch, kv, b.from, false),
             row_of(a.dq, batch, head, b.first),
             a.dq.row,
             false,
             b.count,
             s.width,
             keys});
    product({{dp, keys, true},
             q,
             row_of(a.dk, batch, kv, b.from),
             a.dk.row,
             true,
             keys,
             s.width,
             b.count});
    product({{p, keys, true},
             dout,
             row_of(a.dv, batch, kv, b.from),
             a.dv.row,
             true,
             keys,
             s.value_width,
             b.count});
  });
  if (a.dsinks) a.dsinks[batch * s.heads + head] = dsink;
}

void clear_rows(const HeadRows<float>& x, int64_t batch, int64_t head, int64_t rows,
                int64_t width) {
  for (int64_t r = 0; r < rows; ++r) std::fill_n(row_of(x, batch, head, r), width, 0.0f);
}

}  // namespace

void attention_forward(const AttentionForward& a) {
  const AttentionShape& s = a.shape;
  for_rows(s.batch * s.heads, 1, [&](int64_t begin, int64_t end) {
    Scratch scratch(s);
    for (int64_t i = begin; i < end; ++i) forward_head(a, i / s.heads, i % s.heads, scratch);
  });
}

void attention_backward(const AttentionBackward& a) {
  const AttentionShape& s = a.shape;
  const int64_t group = s.heads / s.kv_heads;
  for_rows(s.batch * s.kv_heads, 1, [&](int64_t begin, int64_t end) {
    Scratch scratch(s);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t batch = i / s.kv_heads, kv = i % s.kv_heads;
      clear_rows(a.dk, batch, kv, s.length, s.width);
      clear_rows(a.dv, batch, kv, s.length, s.value_width);
      for (int64_t h = 0; h < group; ++h) backward_head(a, batch, kv * group + h, scratch);
    }
  });
}

}  // namespace moue::kernels
