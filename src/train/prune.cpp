// Old steps are removed: keep_last and keep_every.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "checkpoint/manifest.h"
#include "core/text.h"
#include "core/tree.h"
#include "moue/log.h"
#include "train/checkpoint.h"

namespace fs = std::filesystem;

namespace moue {
namespace {

// The step that a directory of this name holds.
std::optional<int64_t> step_of(std::string_view name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t step = 0;
  const std::string_view digits = name.substr(kPrefix.size());
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  const bool whole = error == std::errc() && end == digits.data() + digits.size();
  return whole && step_name(step) == name ? std::optional(step) : std::nullopt;
}

// Without its manifest a directory is no step, whatever interrupts the rest.
void remove_step(const fs::path& step) {
  int error = remove_tree(step / kManifestFile);
  if (error == 0) error = remove_tree(step);
  if (error != 0) log_line("train", "{} cannot be removed: {}", step.string(), error_text(error));
}

}  // namespace

void prune_steps(const fs::path& out, int64_t keep_last, int64_t keep_every) {
  if (keep_last == 0) return;
  std::vector<int64_t> steps;
  for (const std::string& name : names_in(out, "train")) {
    if (const auto step = step_of(name)) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  const auto old = static_cast<int64_t>(steps.size()) - keep_last;
  for (int64_t i = 0; i < old; ++i) {
    if (keep_every > 0 && steps[i] % keep_every == 0) continue;
    remove_step(out / step_name(steps[i]));
  }
}

}  // namespace moue
