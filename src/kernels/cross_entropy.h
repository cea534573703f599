// Cross-entropy of rows of logits, with its gradient in their place.
#pragma once

#include "kernels/element.h"

namespace moue::kernels {

/// logits [rows, vocabulary]; target [rows] int64, negative = not counted. loss [rows] float32 =
/// logsumexp - logit of the target (0 where not counted). Where `scale` is not 0 the logits are
/// overwritten by scale * (softmax - onehot).
struct CrossEntropy {
  Element element;
  void* logits;
  const int64_t* target;
  float* loss;
  float scale;
  int64_t rows, vocabulary;
};
void cross_entropy(const CrossEntropy& a, Where where);

namespace cuda {
void cross_entropy(const CrossEntropy& a, void* stream);
}

}  // namespace moue::kernels
