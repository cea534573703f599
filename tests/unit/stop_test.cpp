// SIGINT and SIGTERM as a wish, the second one as an order.
#include "core/stop.h"

#include "moue/error.h"
#include "support/faults.h"
#include "support/messages.h"

#include <csignal>

#include <catch2/catch.hpp>

namespace moue {
namespace {

using test::in_child;
using test::message_of;

int caught = 0;

std::string stop_message() {
  return message_of([] { stop_if_asked("test"); });
}

}  // namespace

TEST_CASE("a signal is a wish while somebody listens", "[stop]") {
  const int number = GENERATE(SIGINT, SIGTERM);
  void (*const before)(int) = std::signal(number, [](int) { ++caught; });
  caught = 0;
  {
    const StopSignals stop;
    CHECK_FALSE(stop.asked());
    CHECK(stop_message() == "");
    std::raise(number);
    CHECK(stop.asked());
    CHECK(stop_message() == "[test] stopped by a signal");
    CHECK_THROWS_AS(stop_if_asked("test"), Interrupted);
  }
  CHECK(stop_message() == "");  // the wish ended with who listened
  CHECK(caught == 0);
  std::raise(number);
  CHECK(caught == 1);  // the handler of before is back
  std::signal(number, before);
}

TEST_CASE("a second signal of either kind ends the process", "[stop]") {
  const int code = in_child([] {
    const StopSignals stop;
    std::raise(SIGINT);
    std::raise(SIGTERM);
  });
  CHECK(code == 128 + SIGTERM);
}

TEST_CASE("signals that were ignored stay so", "[stop]") {
  const int code = in_child([] {
    std::signal(SIGINT, SIG_IGN);
    const StopSignals stop;
    std::raise(SIGINT);
    if (stop.asked()) std::abort();
    std::raise(SIGTERM);
    if (!stop.asked()) std::abort();
  });
  CHECK(code == 0);
}

}  // namespace moue
