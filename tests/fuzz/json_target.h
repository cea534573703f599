// The mutator of targets whose whole input is JSON.
#pragma once

#include <cstring>

#include "fuzz/fuzz.h"
#include "fuzz/json_mutator.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed) {
  moue::fuzz::Random random(seed);
  if (random() % 8 == 0) return LLVMFuzzerMutate(data, size, most);
  const std::string text =
      moue::fuzz::mutate_json(std::string(moue::fuzz::text_of(data, size)), random);
  const size_t taken = std::min(text.size(), most);
  std::memcpy(data, text.data(), taken);
  return taken;
}
