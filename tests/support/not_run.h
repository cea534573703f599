// For tests that need what this machine may lack: the program then ends with 77, CTest's "did not
// run".
#pragma once

namespace moue::test {

/// Called by a test before it returns early; `why` is printed once at the end.
void did_not_run(const char* why);

}  // namespace moue::test
