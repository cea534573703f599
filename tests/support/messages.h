// What a refusal says.
#pragma once

#include <string>

#include "moue/error.h"

namespace moue::test {

/// The message of the Error that `run` throws; "" where it throws none.
template <class Run>
std::string message_of(Run&& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace moue::test
