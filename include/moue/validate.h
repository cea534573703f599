// validate: the gates G0-G3 between an original and what was made of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "moue/checkpoint.h"
#include "moue/report.h"

namespace moue {

struct ValidateOptions {
  std::filesystem::path
      reference;  ///< safetensors with `tokens` and `logits` from elsewhere; "" = G2 not applicable
  std::filesystem::path tokens;  ///< text for G1 and G3; "" = 512 seeded tokens
  std::string token_type;
  int64_t max_tokens = 0;  ///< for G3; 0 = the whole file
  int64_t length = 256;
  int64_t batch = 16;
  uint64_t memory = uint64_t{4} << 30;  ///< bytes of weights held at a time
  std::string expect;                   ///< the state to demand; "" = as the directory says
  std::string dtype;  ///< float32 | bfloat16; "" = float32 for small models, else the checkpoint's
  std::string device = "cpu";
  int64_t threads = 0;
  double max_logit_error = 1e-4;   ///< G2: largest difference over the largest logit
  double max_loss_increase = -1;   ///< G3: nats over the source; negative = report only
  double max_kl = -1;              ///< G3: mean KL(source || result), nats; negative = report only
  bool only_bytes = false;         ///< G0 alone: compares files, runs no model, needs no LibTorch
  std::filesystem::path html;      ///< page to write; "" = none
  std::filesystem::path manifest;  ///< validate_directory() of this instead of the gates; "" = not
};

/// G0 needs no LibTorch; G1-G3 do. The report's passed() is false when a gate that applies fails.
Report validate(const Checkpoint& original, const std::filesystem::path& result,
                const ValidateOptions& options);

/// What the directory's own manifest allows to be checked, without source and LibTorch: files,
/// sizes, hashes, what became of each source tensor, and that a model opens. Throws Error where
/// there is no such directory.
Report validate_directory(const std::filesystem::path& directory);

}  // namespace moue
