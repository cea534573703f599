// A checkpoint of names and shapes without files, for what reads headers only.
#pragma once

#include "moue/checkpoint.h"
#include "support/messages.h"

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

}  // namespace moue::test
