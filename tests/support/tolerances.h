// Every bound a test compares arithmetic with: a name and a reason. Moving bytes has none: it is
// exact.
#pragma once

namespace moue::tolerance {

/// Reference numbers of tests/golden (design: the Hugging Face classes compute parts in float32),
/// relative to the largest value of the tensor.
inline constexpr double kGolden = 2e-5;
/// Gradients of tests/golden, relative to the largest of the tensor: one more pass through float32.
inline constexpr double kGoldenGradient = 1e-4;
/// Logits and hidden states of tests/golden/families against transformers in float32, relative to
/// the largest.
inline constexpr double kFamilyLogits = 1e-5;
/// The same of MiniMax, at 2.3e-5 where transformers itself is 1.2e-5 from its own float64: the
/// residual passes through a norm in every block.
inline constexpr double kMiniMaxLogits = 5e-5;
/// The median logit of the same in bfloat16: 2^-8 a rounding, some forty in a row. The median, for
/// a token whose choice of experts stood on the edge may well choose another. MiniMax is at 3.2e-2.
inline constexpr double kFamilyBFloat16 = 5e-2;
/// Derivatives along a direction by float32 gradients against float64 differences, relative to the
/// largest of 20: most are within 4e-6, MiniMax at 3.4e-5.
inline constexpr double kDerivative = 5e-5;

/// Cosines of angles per position: float32 frequencies, and the product rounded once more.
inline constexpr double kAngles = 1.3e-7;

/// A block of the model in float32 beside a plain formulation in float64: sums of some hundred
/// products, a few in a row; relative to the largest.
inline constexpr double kBlock = 1e-5;
/// Its gradients: one more pass, and sums over all tokens.
inline constexpr double kBlockGradient = 3e-5;
/// The same in bfloat16: a rounding is up to 2^-8 = 0.4 % of a number, and some ten stand in a row
/// between an input and its gradient.
inline constexpr double kBlockBFloat16 = 4e-2;
/// What a block must miss by when one of its parts is changed: a hundred gradients' bounds.
inline constexpr double kVisibleBlock = 3e-3;

/// Mean held-out loss in float32 against transformers': the sixth digit of its README.
inline constexpr double kHeldOutLoss = 1e-4;

/// Linear CKA from products in float32 beside all of it in double; scores lie between 0 and 1.
inline constexpr double kCka = 2e-6;

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
/// The same on the recorded half-open model, whose sums are short: seen 3.4e-7.
inline constexpr double kMicroBatchGolden = 1e-6;

}  // namespace moue::tolerance
