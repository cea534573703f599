// Work under a ceiling of memory.
#pragma once

#include <cstdint>
#include <functional>

namespace moue::test {

/// Runs `work` in a process that may take at most `bytes` more memory than ours; true when it
/// returns true.
bool works_within(uint64_t bytes, const std::function<bool()>& work);

}  // namespace moue::test
