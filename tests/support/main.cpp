// Catch2's main, compiled once. Exit code 77 (CTest: did not run) when GPU tests are asked for
// without a device.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
