// Joins the zip file's entries and the pickle's tensors, and holds them against each other.
#include "checkpoint/pickle_file.h"

#include "checkpoint/header.h"
#include "checkpoint/pickle.h"
#include "checkpoint/strided.h"
#include "core/text.h"
#include "moue/error.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <unordered_map>

namespace moue {
namespace fs = std::filesystem;
namespace {

std::string shown(const fs::path& file) { return printable(file.native(), 400); }

std::string content_of(const InputFile& input, const ZipEntry& entry) {
  check_crc(input, entry);
  std::string text(entry.size, '\0');
  input.read_at(entry.offset, std::as_writable_bytes(std::span(text)));
  return text;
}

// "NAME/" of "NAME/data.pkl", which all entries share.
std::string prefix_of(const std::vector<ZipEntry>& entries, const std::string& file) {
  std::vector<std::string> pickles, strangers;
  for (const ZipEntry& entry : entries) {
    const size_t slash = entry.name.find('/');
    if (slash != entry.name.npos && entry.name.substr(slash) == "/data.pkl") {
      pickles.push_back(entry.name.substr(0, slash + 1));
    }
  }
  if (pickles.size() != 1) {
    fail("pytorch",
         "{}: the zip file has {} named data.pkl, wanted one; was it not written by "
         "torch.save?",
         file, counted(pickles.size(), "pickle"));
  }
  for (const ZipEntry& entry : entries) {
    const std::string_view name = entry.name;
    if (name.starts_with(pickles[0] + "code/") || name == pickles[0] + "constants.pkl") {
      fail("pytorch", "{}: it holds a TorchScript program, wanted tensors; save its state_dict()",
           file);
    }
    if (!name.starts_with(pickles[0])) strangers.push_back(in_quotes(name));
  }
  if (!strangers.empty()) {
    fail("pytorch", "{}: {} outside {}: {}", file, counted(strangers.size(), "name"),
         in_quotes(pickles[0]), join_some(strangers, 5));
  }
  return pickles[0];
}

// Finds entries by name.
class Entries {
 public:
  explicit Entries(const std::vector<ZipEntry>& entries) {
    for (const ZipEntry& entry : entries) by_name_.emplace(entry.name, &entry);
  }
  const ZipEntry* find(std::string_view name) const {
    const auto it = by_name_.find(name);
    return it == by_name_.end() ? nullptr : it->second;
  }

 private:
  std::unordered_map<std::string_view, const ZipEntry*> by_name_;
};

// One tensor of the pickle, held against the entry it says to lie in.
class Placing {
 public:
  Placing(const PickledTensor& tensor, const std::string& file)
      : tensor_(tensor),
        file_(file),
        width_(static_cast<uint64_t>(dtype_bits(tensor.dtype) + 7) / 8) {}

  TensorInfo in(const ZipEntry& entry) const {
    uint64_t bytes = tensor_.storage_elements;
    if (!tensor_.storage_is_bytes && __builtin_mul_overflow(bytes, width_, &bytes))
      bytes = ~uint64_t{0};
    if (bytes != entry.size) {
      refuse("its storage {} has {} bytes, the pickle says {}", in_quotes(tensor_.storage, 40),
             entry.size, bytes);
    }
    const uint64_t room = entry.size / width_;
    const std::optional<uint64_t> elements = product();
    const std::optional<uint64_t> needed = reach(tensor_.shape, tensor_.strides);
    if (!elements || !needed || tensor_.offset < 0 ||
        static_cast<uint64_t>(tensor_.offset) > room ||
        *needed > room - static_cast<uint64_t>(tensor_.offset)) {
      refuse("shape {}, strides {} and offset {} reach beyond its storage of {}",
             shape_text(tensor_.shape), shape_text(tensor_.strides), tensor_.offset,
             counted(room, "element"));
    }
    if (*elements > room) {
      refuse("shape {} has more elements than its storage of {}; save it with .contiguous()",
             shape_text(tensor_.shape), counted(room, "element"));
    }
    TensorInfo info{
        .name = std::string(tensor_.name), .dtype = tensor_.dtype, .shape = tensor_.shape};
    info.offset = entry.offset + static_cast<uint64_t>(tensor_.offset) * width_;
    info.bytes = *elements * width_;
    if (!is_row_major(tensor_.shape, tensor_.strides)) {
      info.strided = std::make_shared<const Strided>(Strided{tensor_.shape, tensor_.strides});
    }
    if (tensor_.dtype == Dtype::F4) unpack(info);
    return info;
  }

 private:
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> text, Args&&... args) const {
    fail("pytorch", "{}: tensor {}: {}", file_, in_quotes(tensor_.name),
         fmt::format(text, std::forward<Args>(args)...));
  }

  std::optional<uint64_t> product() const {
    uint64_t elements = 1;
    for (const int64_t size : tensor_.shape) {
      if (size < 0 || __builtin_mul_overflow(elements, static_cast<uint64_t>(size), &elements)) {
        return {};
      }
    }
    return elements;
  }

  // torch counts pairs of FP4 numbers, safetensors counts numbers.
  void unpack(TensorInfo& info) const {
    if (info.strided || info.shape.empty()) {
      refuse("it is {} of FP4, wanted a contiguous one; save it with .contiguous()",
             shape_text(info.shape));
    }
    info.shape.back() *= 2;
  }

  const PickledTensor& tensor_;
  const std::string& file_;
  uint64_t width_;
};

std::vector<TensorInfo> place(const std::vector<PickledTensor>& pickled, const Entries& entries,
                              const std::string& prefix, const std::string& file) {
  std::vector<TensorInfo> tensors;
  tensors.reserve(pickled.size());
  for (const PickledTensor& tensor : pickled) {
    const ZipEntry* entry = entries.find(fmt::format("{}data/{}", prefix, tensor.storage));
    if (entry == nullptr) {
      fail("pytorch", "{}: tensor {} lies in storage {}, which the zip file lacks", file,
           in_quotes(tensor.name), in_quotes(tensor.storage, 40));
    }
    tensors.push_back(Placing(tensor, file).in(*entry));
  }
  std::ranges::stable_sort(
      tensors, {}, [](const TensorInfo& tensor) { return std::pair(tensor.offset, tensor.bytes); });
  return tensors;
}

constexpr std::string_view kToSafetensors =
    "python3 -c \"import sys, torch, safetensors.torch as s; s.save_file({k: v.clone() for k, v in "
    "torch.load(sys.argv[1], map_location='cpu', weights_only=True).items()}, sys.argv[2], "
    "{'format': 'pt'})\" OLD model.safetensors";

}  // namespace

WeightFormat format_of(const fs::path& file) {
  const InputFile input(file, "checkpoint");
  std::array<char, 263> start{};
  const size_t count = std::min<uint64_t>(start.size(), input.size());
  input.read_at(0, std::as_writable_bytes(std::span(start).first(count)));
  const std::string_view seen(start.data(), count);
  uint64_t length = 0;  // of the header, were it safetensors
  if (count >= sizeof(length)) std::memcpy(&length, start.data(), sizeof(length));
  const bool is_zip = seen.starts_with("PK\x03\x04") || seen.starts_with("PK\x05\x06");
  if (is_zip && !(length <= kMostHeaderBytes && count > 8 && seen[8] == '{')) {
    return WeightFormat::PyTorch;
  }
  const bool is_tar = seen.size() >= 262 && seen.substr(257, 5) == "ustar";
  // A pickle of protocol 2 that starts with torch's magic number.
  const bool is_legacy = seen.starts_with("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19");
  const bool is_pickle = seen.starts_with("\x80\x02");
  if (length <= kMostHeaderBytes || (!is_tar && !is_pickle)) return WeightFormat::Safetensors;
  fail("pytorch",
       "{}: it is {}, wanted a zip file as torch.save writes since 1.6; convert it with: {}",
       shown(file),
       is_tar      ? "a tar file, as PyTorch wrote before 0.1.10"
       : is_legacy ? "in PyTorch's form before 1.6"
                   : "a bare pickle",
       kToSafetensors);
}

PickleFile::PickleFile(const fs::path& file) : input_(file, "pytorch") {
  const std::string name = shown(file);
  entries_ = read_zip(input_);
  checked_ = std::make_unique<Checked[]>(entries_.size());
  const std::string prefix = prefix_of(entries_, name);
  const Entries entries(entries_);
  if (const ZipEntry* order = entries.find(prefix + "byteorder")) {
    if (order->size > 6 || content_of(input_, *order) != "little") {
      fail("pytorch", "{}: its byte order is not 'little'; save it on another machine", name);
    }
  }
  const ZipEntry& pickle = *entries.find(prefix + "data.pkl");
  if (pickle.size > kMostPickleBytes) {
    fail("pytorch", "{}: the pickle has {} bytes, wanted at most {}", name, pickle.size,
         kMostPickleBytes);
  }
  const std::string text = content_of(input_, pickle);
  tensors_ = place(read_pickle(text, name), entries, prefix, name);
  if (const TensorInfo* twice = names_.fill(tensors_)) {
    fail("pytorch", "{}: tensor {} stands twice", name, in_quotes(twice->name));
  }
}

void PickleFile::read_at(uint64_t offset, std::span<std::byte> out) const {
  if (out.empty()) return;
  const auto after = std::ranges::upper_bound(entries_, offset, {}, &ZipEntry::offset);
  const auto number = static_cast<size_t>(after - entries_.begin()) - 1;  // 0 is never before data
  std::call_once(checked_[number].once, [&] { check_crc(input_, entries_[number]); });
  input_.read_at(offset, out);
}

}  // namespace moue
