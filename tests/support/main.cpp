// Catch2's main, compiled once. Exit code 77 (CTest: did not run) when a test lacked what it needs.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#include <cstdio>

#include "support/not_run.h"

namespace {

constexpr int kDidNotRun = 77;
const char* reason = nullptr;

}  // namespace

void moue::test::did_not_run(const char* why) { reason = why; }

int main(int argc, char** argv) {
  const int failures = Catch::Session().run(argc, argv);
  if (failures != 0 || !reason) return failures;
  std::fprintf(stderr, "did not run, and did not pass: %s\n", reason);
  return kDidNotRun;
}
