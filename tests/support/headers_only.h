// A checkpoint of names and shapes without files, for what reads headers only.
#pragma once

#include "moue/checkpoint.h"
#include "moue/error.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace moue::test {

inline Checkpoint headers_only(const Config& config, std::vector<TensorInfo> tensors) {
  auto contents = std::make_shared<Checkpoint::Contents>(
      Checkpoint::Contents{"headers", config, {}, {}, {}, std::move(tensors), {}});
  for (size_t i = 0; i < contents->tensors.size(); ++i) {
    contents->by_name.emplace(contents->tensors[i].name, static_cast<uint32_t>(i));
  }
  return Checkpoint(contents);
}

inline Checkpoint headers_only(const std::string& config, std::vector<TensorInfo> tensors) {
  return headers_only(Config::parse(config, "config.json"), std::move(tensors));
}

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
