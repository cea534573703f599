// Causal softmax attention in float32 on a CPU that has_product(): blocks of queries against all
// keys they see, products of our own, nothing of size length^2 kept.
#pragma once

#include <cstdint>

namespace moue::kernels {

/// Numbers of heads [B, H, length, width]; elements from one to the next, a row's lie together.
template <class T>
struct HeadRows {
  T* data;
  int64_t batch, head, row;
};

struct AttentionShape {
  int64_t batch, heads, kv_heads;  ///< heads is a multiple of kv_heads
  int64_t length, width, value_width;
  float scale;
  int64_t window;  ///< positions that a query sees, its own included; 0 = all before it
};

/// out = softmax(scale q k^T) v over the keys a query sees. sinks [heads] (or null): a logit that
/// joins a head's softmax and takes its share away. norm [B, H, length]: the log of the sum of
/// exponentials, for backward.
struct AttentionForward {
  AttentionShape shape;
  HeadRows<const float> q, k, v;
  const float* sinks;
  HeadRows<float> out;
  float* norm;
};
void attention_forward(const AttentionForward& a);

/// Writes dq, dk, dv; dsinks [B, H] (null where sinks is) is the part of each sequence.
struct AttentionBackward {
  AttentionShape shape;
  HeadRows<const float> q, k, v;
  const float* sinks;
  HeadRows<const float> out, dout;
  const float* norm;
  HeadRows<float> dq, dk, dv;
  float* dsinks;
};
void attention_backward(const AttentionBackward& a);

}  // namespace moue::kernels
