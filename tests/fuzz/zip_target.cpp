// Fuzzes files of torch.save, whole: zip file, pickle, storages, strides, sums.
#include <cstring>
#include <string>

#include "fuzz/fuzz.h"
#include "fuzz/pickle_mutator.h"
#include "moue/weight_file.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed) {
  moue::fuzz::Random random(seed);
  if (random() % 8 == 0) return LLVMFuzzerMutate(data, size, most);
  const std::string changed =
      moue::fuzz::mutate_zip(std::string(moue::fuzz::text_of(data, size)), random);
  const size_t taken = std::min(changed.size(), most);
  std::memcpy(data, changed.data(), taken);
  return taken;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moue;
  return fuzz::attempt([&] {
    const WeightFile file(fuzz::as_file(fuzz::text_of(data, size)));
    for (const TensorInfo& tensor : file.tensors()) {
      fuzz::require(tensor.bytes <= size, "no tensor is larger than its file");
      file.read(tensor);
    }
  });
}
