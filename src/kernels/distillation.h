// Cross-entropy mixed with the divergence from a teacher, with the gradient in the logits' place.
#pragma once

#include "kernels/cross_entropy.h"

namespace moue::kernels {

/// Rows as in CrossEntropy, whose `loss` stays the cross-entropy alone. With t = temperature and
/// p = softmax(teacher / t), q = softmax(logits / t): divergence [rows] float32 = t^2 KL(p || q) (0
/// where not counted), the gradient of (1 - share) loss + share divergence takes the logits' place,
/// times `scale` where that is not 0. (Hinton, Vinyals, Dean 2015, arXiv 1503.02531: t^2 keeps the
/// gradient's size.) The divergence of equal rows is exactly 0.
struct Distillation {
  CrossEntropy student;
  const void* teacher;  ///< [rows, vocabulary]
  float* divergence;
  float share;
  float temperature;
};
void distillation(const Distillation& a, Where where);

namespace cuda {
void distillation(const Distillation& a, void* stream);
}

}  // namespace moue::kernels
