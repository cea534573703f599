// The same work on many items, spread over the machine's cores.
#pragma once

#include <cstdint>
#include <functional>

namespace moue {

/// Calls work(0) to work(count - 1), each once, in any order, on as many threads as there are
/// cores, and after each done(how many are), one at a time. The first exception stops the rest and
/// is thrown here.
void in_parallel(int64_t count, const std::function<void(int64_t)>& work,
                 const std::function<void(int64_t)>& done);

}  // namespace moue
