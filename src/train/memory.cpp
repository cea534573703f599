// Memory that runs out while a model trains.
#include "train/memory.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <new>
#include <regex>
#include <vector>

#include "moue/error.h"
#include "moue/report.h"

namespace moue {
namespace {

// Allocators say how much was wanted: "you tried to allocate 123 bytes", "Tried to allocate 2.00
// GiB".
std::string wanted_in(const std::string& message) {
  static const std::regex pattern("ried to allocate ([0-9.]+ ?[KMGT]?i?)(B|bytes)");
  std::smatch found;
  if (!std::regex_search(message, found, pattern)) return "";
  std::string number = found[1];
  if (found[2] == "bytes") number = bytes_text(std::stoull(number));
  return " for " + number + (found[2] == "bytes" ? "" : "B");
}

// LibTorch's CPU allocator has no exception of its own.
bool is_out_of_memory(const c10::Error& error) {
  const std::string what = error.what_without_backtrace();
  return dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr ||
         what.find("DefaultCPUAllocator") != std::string::npos;
}

[[noreturn]] void refuse(const std::string& wanted, const std::string& doing,
                         const std::string& advice) {
  fail("train", "out of memory{} while {}; {}; --dry_run says what each part takes", wanted, doing,
       advice);
}

}  // namespace

void within_memory(const std::string& doing, const std::string& advice,
                   const std::function<void()>& work) {
  std::string wanted;
  try {
    work();
    return;
  } catch (const std::bad_alloc&) {
  } catch (const c10::Error& error) {
    if (!is_out_of_memory(error)) throw;
    wanted = wanted_in(error.what_without_backtrace());
  }
  refuse(wanted, doing, advice);
}

std::string less_memory_in_steps(const TrainOptions& o) {
  std::vector<std::string> settings;
  if (o.micro_batch > 1)
    settings.push_back(fmt::format("micro_batch = {}", std::max<int64_t>(1, o.micro_batch / 2)));
  if (!o.recompute) settings.emplace_back("recompute = true");
  if (o.dtype == "float32") settings.emplace_back("dtype = \"bfloat16\"");
  if (settings.empty()) settings.push_back(fmt::format("length below {}", o.length));
  return fmt::format("try {}", fmt::join(settings, " or "));
}

std::string less_memory_in_weights(const TrainOptions& o) {
  std::vector<std::string> settings = {"freeze = [\"*.experts.*\"]"};
  if (o.ema > 0) settings.emplace_back("ema = 0");
  if (o.moments == "float32") settings.emplace_back("moments = \"bfloat16\"");
  if (o.dtype == "bfloat16" && o.master == "float32") settings.emplace_back("master = \"none\"");
  return fmt::format("try {}", fmt::join(settings, " or "));
}

}  // namespace moue
