// Fuzzes model.safetensors.index.json: what is read is written and read the same.
#include "checkpoint/index.h"
#include "fuzz/json_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moue;
  return fuzz::attempt([&] {
    const Index index = read_index(fuzz::as_file(fuzz::text_of(data, size)));
    for (const std::string& file : index.files) fuzz::require(is_plain_name(file), "plain names");
    const Index again = read_index(fuzz::as_file(index_text(index, 1, 2)));
    fuzz::require(again.files == index.files && again.weight_map == index.weight_map,
                  "an index is written as it is read");
  });
}
