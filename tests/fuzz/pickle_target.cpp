// Fuzzes the pickle machine.
#include <cstring>
#include <string>

#include "checkpoint/pickle.h"
#include "fuzz/fuzz.h"
#include "fuzz/pickle_mutator.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed) {
  moue::fuzz::Random random(seed);
  if (random() % 8 == 0) return LLVMFuzzerMutate(data, size, most);
  const std::string changed =
      moue::fuzz::mutate_pickle(std::string(moue::fuzz::text_of(data, size)), random);
  const size_t taken = std::min(changed.size(), most);
  std::memcpy(data, changed.data(), taken);
  return taken;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moue;
  return fuzz::attempt([&] {
    const std::string file = "input";
    for (const PickledTensor& tensor : read_pickle(fuzz::text_of(data, size), file)) {
      fuzz::require(tensor.shape.size() == tensor.strides.size(), "a stride for each dimension");
    }
  });
}
