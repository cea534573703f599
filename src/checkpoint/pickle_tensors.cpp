// The tensors of a finished pickle.
#include "checkpoint/pickle_values.h"
#include "core/text.h"
#include "moue/error.h"

namespace moue::pickle {
namespace {

constexpr size_t kMostRank = 16;

class Result {
 public:
  Result(const Heap& heap, const std::string& file) : heap_(heap), file_(file) {}

  std::vector<PickledTensor> all(Value top) const {
    if (top.kind != Kind::Dict && top.kind != Kind::OrderedDict) {
      refuse("the pickle is {}, wanted a dict of names and tensors", name_of(top.kind));
    }
    std::vector<PickledTensor> found;
    std::vector<std::string> others;
    for (const Item& item : heap_.items) {
      if (item.dict != top.data) continue;
      const std::string key =
          item.key.kind == Kind::Text ? "" : fmt::format("a key is {}", name_of(item.key.kind));
      if (key.empty() && item.value.kind == Kind::Tensor) {
        found.push_back(
            pickled(heap_.text(item.key), heap_.tensors[static_cast<size_t>(item.value.data)]));
      } else if (others.size() < 20) {
        others.push_back(!key.empty() ? key
                                      : fmt::format("{} is {}", in_quotes(heap_.text(item.key)),
                                                    name_of(item.value.kind)));
      }
    }
    if (!others.empty()) {
      refuse("wanted tensors by name and nothing else, but {}", join_some(others, 8));
    }
    return found;
  }

 private:
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> text, Args&&... args) const {
    fail("pytorch", "{}: {}", file_, fmt::format(text, std::forward<Args>(args)...));
  }

  std::vector<int64_t> integers(Value tuple, std::string_view name, const char* what) const {
    if (tuple.count > kMostRank) {
      refuse("tensor {} has {} dimensions, wanted at most {}", in_quotes(name), tuple.count,
             kMostRank);
    }
    std::vector<int64_t> numbers;
    for (const Value& value : heap_.members_of(tuple)) {
      if (value.kind != Kind::Int) {
        refuse("tensor {}: its {} holds {}", in_quotes(name), what, name_of(value.kind));
      }
      numbers.push_back(value.data);
    }
    return numbers;
  }

  PickledTensor pickled(std::string_view name, const Tensor& tensor) const {
    PickledTensor result{
        .name = name,
        .storage = tensor.storage.key,
        .storage_elements = static_cast<uint64_t>(tensor.storage.elements),
        .storage_is_bytes = tensor.storage.type->use == PickleGlobal::Use::StorageOfBytes,
        .dtype = tensor.dtype,
        .offset = tensor.offset,
        .shape = integers(tensor.shape, name, "shape"),
        .strides = integers(tensor.strides, name, "strides")};
    if (result.shape.size() != result.strides.size()) {
      refuse("tensor {} has {} and {}", in_quotes(name), counted(result.shape.size(), "dimension"),
             counted(result.strides.size(), "stride"));
    }
    if (tensor.storage.elements < 0) {
      refuse("tensor {}: its storage has {} elements", in_quotes(name), tensor.storage.elements);
    }
    return result;
  }

  const Heap& heap_;
  const std::string& file_;
};

}  // namespace

std::vector<PickledTensor> tensors_of(const Heap& heap, Value top, const std::string& file) {
  return Result(heap, file).all(top);
}

}  // namespace moue::pickle
