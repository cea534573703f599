// Every bound a test compares arithmetic with: a name and a reason. Moving bytes has none: it is
// exact.
#pragma once

namespace moue::tolerance {

/// Reference numbers of tests/golden (design: the Hugging Face classes compute parts in float32),
/// relative to the largest value of the tensor.
inline constexpr double kGolden = 2e-5;
/// Gradients of tests/golden, relative to the largest of the tensor: one more pass through float32.
inline constexpr double kGoldenGradient = 1e-4;
/// Logits of tests/golden/families against transformers in float32, relative to the largest.
inline constexpr double kFamilyLogits = 1e-5;

/// Mean held-out loss in float32 against transformers': the sixth digit of its README.
inline constexpr double kHeldOutLoss = 1e-4;

/// Sums of doubles taken in another order.
inline constexpr double kDoubleSum = 1e-12;
/// float32 AdamW beside torch::optim::AdamW after 20 steps: they round lr / bias correction at
/// other places.
inline constexpr double kAdamw = 2e-6;
/// Losses of 20 pico steps in float32 on two devices: other sums, and AdamW divides tiny gradients
/// by themselves.
inline constexpr double kDeviceTraining = 2e-3;
/// The same step with 1 or 4 micro-batches in float32: sums over tokens are split, relative to the
/// largest.
inline constexpr double kMicroBatch = 2e-5;

}  // namespace moue::tolerance
