// Pickles by hand.
#include "support/pickles.h"

#include <fmt/format.h>

#include <stdexcept>

#include "support/zip_file.h"

namespace moue::test {
namespace {

using namespace std::string_literals;

std::string little(uint64_t value, size_t bytes) {
  std::string out;
  for (size_t i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
  return out;
}

std::string_view storage_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::F32:
      return "FloatStorage";
    case Dtype::BF16:
      return "BFloat16Storage";
    case Dtype::F16:
      return "HalfStorage";
    case Dtype::I64:
      return "LongStorage";
    default:
      throw std::logic_error("torch_file of another type");
  }
}

}  // namespace

std::string pickled_text(std::string_view text) {
  return "X" + little(text.size(), 4) + std::string(text);
}

std::string pickled_int(int64_t value) {
  if (value >= 0 && value < 256) return "K" + little(static_cast<uint64_t>(value), 1);
  return "\x8a\x08" + little(static_cast<uint64_t>(value), 8);
}

std::string pickled_tuple(const std::vector<int64_t>& numbers) {
  std::string out = "(";
  for (const int64_t number : numbers) out += pickled_int(number);
  return out + "t";
}

std::string pickled_global(std::string_view module, std::string_view name) {
  return fmt::format("c{}\n{}\n", module, name);
}

std::string pickled_storage(std::string_view type, std::string_view key, int64_t elements) {
  const std::string_view module = type == "UntypedStorage" ? "torch.storage" : "torch";
  return "(" + pickled_text("storage") + pickled_global(module, type) + pickled_text(key) +
         pickled_text("cpu") + pickled_int(elements) + "tQ";
}

std::string pickled_tensor(int64_t offset, const std::vector<int64_t>& shape,
                           const std::vector<int64_t>& strides, std::string storage) {
  if (storage.empty()) storage = pickled_storage("FloatStorage", "0", 6);
  return pickled_global("torch._utils", "_rebuild_tensor_v2") + "(" + storage +
         pickled_int(offset) + pickled_tuple(shape) + pickled_tuple(strides) + "\x89" +
         pickled_global("collections", "OrderedDict") + ")RtR";
}

std::string pickled_dict(std::string_view items) { return fmt::format("\x80\x02}}({}u.", items); }

std::string torch_file(std::string_view pickle) {
  return zip_file({{"a/data.pkl", std::string(pickle)},
                   {"a/byteorder", "little"},
                   {"a/data/0", std::string(24, 'f')},
                   {"a/version", "3\n"}},
                  {.large = true});
}

std::string torch_file(const std::vector<TensorView>& tensors) {
  std::string items;
  std::vector<ZipItem> entries;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorView& tensor = tensors[i];
    const std::string key = fmt::format("{}", i);
    std::vector<int64_t> strides(tensor.shape.size(), 1);
    for (size_t k = strides.size(); k-- > 1;) strides[k - 1] = strides[k] * tensor.shape[k];
    const auto elements = static_cast<int64_t>(tensor.bytes.size()) * 8 / dtype_bits(tensor.dtype);
    items += pickled_text(tensor.name) +
             pickled_tensor(0, tensor.shape, strides,
                            pickled_storage(storage_of(tensor.dtype), key, elements));
    entries.push_back(
        {"archive/data/" + key,
         std::string(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size())});
  }
  entries.insert(entries.begin(), {"archive/data.pkl", pickled_dict(items)});
  entries.push_back({"archive/version", "3\n"});
  return zip_file(entries, {.large = true});
}

}  // namespace moue::test
