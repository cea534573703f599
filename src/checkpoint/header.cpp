// Strict parse of a safetensors header: a state machine over nlohmann's SAX events, then the
// layout's checks.
#include "checkpoint/header.h"

#include "core/json.h"
#include "core/text.h"
#include "moue/error.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <numeric>

namespace moue {
namespace {

using Json = nlohmann::json;

// What the next event has to be. No state nests deeper than top level, entry, list: that is the
// depth cap.
enum class Place : uint8_t {
  Start,
  Top,
  Metadata,
  MetadataOpen,
  Entry,
  EntryOpen,
  Dtype,
  Shape,
  ShapeOpen,
  Offsets,
  OffsetsOpen,
  End
};

class HeaderReader {
 public:
  explicit HeaderReader(uint64_t data_bytes) : data_bytes_(data_bytes) {}

  bool null() { return wrong("null"); }
  bool boolean(bool value) { return wrong(value ? "true" : "false"); }
  bool number_integer(int64_t value) { return wrong(fmt::format("{}", value)); }
  bool number_float(double, const std::string& text) { return wrong(printable(text, 40)); }
  bool binary(Json::binary_t&) { return false; }

  bool number_unsigned(uint64_t value) {
    if (place_ == Place::ShapeOpen) return dimension(value);
    if (place_ == Place::OffsetsOpen) return offset(value);
    return wrong(fmt::format("{}", value));
  }

  bool string(std::string& value) {
    if (place_ == Place::MetadataOpen) return metadata(value);
    if (place_ != Place::Dtype) return wrong(in_quotes(value, 40));
    const auto dtype = dtype_of(value);
    if (!dtype)
      return fault("{}: dtype {} is not one of the format's", tensor(), in_quotes(value, 40));
    info_.dtype = *dtype;
    place_ = Place::EntryOpen;
    return true;
  }

  bool start_object(size_t) {
    if (place_ == Place::Start) return go(Place::Top);
    if (place_ == Place::Metadata) return go(Place::MetadataOpen);
    if (place_ == Place::Entry) return go(Place::EntryOpen);
    return wrong("an object");
  }

  bool end_object() {
    if (place_ == Place::Top) return go(Place::End);
    if (place_ == Place::MetadataOpen) return go(Place::Top);
    return end_entry();
  }

  bool start_array(size_t) {
    if (place_ == Place::Shape) return go(Place::ShapeOpen);
    if (place_ == Place::Offsets) return go(Place::OffsetsOpen);
    return wrong("a list");
  }

  bool end_array() {
    if (place_ == Place::OffsetsOpen && num_offsets_ != 2) {
      return fault("{}: data_offsets holds {}, wanted begin and end", tensor(),
                   counted(num_offsets_, "number"));
    }
    return go(Place::EntryOpen);
  }

  bool key(std::string& name) {
    if (place_ == Place::Top) return top_key(name);
    if (place_ == Place::MetadataOpen) {
      metadata_key_ = std::move(name);
      return true;
    }
    return entry_key(name);
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) {
    return fault("not JSON at byte {} of the header: {}", position, json_fault(error.what()));
  }

  const std::string& fault() const { return fault_; }
  Header take() { return std::move(header_); }

 private:
  enum Field : unsigned { kDtype = 1, kShape = 2, kOffsets = 4, kAll = 7 };

  template <class... Args>
  bool fault(fmt::format_string<Args...> text, Args&&... args) {
    fault_ = fmt::format(text, std::forward<Args>(args)...);
    return false;
  }
  bool go(Place place) {
    place_ = place;
    return true;
  }
  std::string tensor() const { return "tensor " + in_quotes(info_.name); }

  bool top_key(std::string& name) {
    if (name == "__metadata__") {
      if (std::exchange(has_metadata_, true)) return fault("__metadata__ stands twice");
      return go(Place::Metadata);
    }
    info_ = {};
    info_.name = std::move(name);
    fields_ = 0;
    return go(Place::Entry);
  }

  bool entry_key(const std::string& name) {
    if (name == "dtype") return field(kDtype, Place::Dtype, name);
    if (name == "shape") return field(kShape, Place::Shape, name);
    if (name == "data_offsets") {
      num_offsets_ = 0;
      return field(kOffsets, Place::Offsets, name);
    }
    return fault("{}: key {} is unknown, wanted dtype, shape, data_offsets", tensor(),
                 in_quotes(name, 40));
  }

  bool field(Field bit, Place place, const std::string& name) {
    if ((fields_ & bit) != 0) return fault("{}: {} stands twice", tensor(), name);
    fields_ |= bit;
    return go(place);
  }

  bool metadata(std::string& value) {
    if (!header_.metadata.emplace(std::move(metadata_key_), std::move(value)).second) {
      return fault("__metadata__ holds a key twice");
    }
    return true;
  }

  bool dimension(uint64_t value) {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return fault("{}: dimension {} is 2^63 or more", tensor(), value);
    }
    info_.shape.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool offset(uint64_t value) {
    if (num_offsets_ == 0) info_.offset = value;
    if (num_offsets_ == 1) end_ = value;
    ++num_offsets_;
    return true;
  }

  bool end_entry() {
    if (fields_ != kAll) {
      return fault("{} lacks {}", tensor(),
                   (fields_ & kDtype) == 0   ? "dtype"
                   : (fields_ & kShape) == 0 ? "shape"
                                             : "data_offsets");
    }
    if (end_ < info_.offset) {
      return fault("{}: data_offsets [{}, {}] end before they begin", tensor(), info_.offset, end_);
    }
    if (end_ > data_bytes_) {
      return fault(
          "{}: data_offsets [{}, {}] reach beyond the {} bytes of data; is the file cut off?",
          tensor(), info_.offset, end_, data_bytes_);
    }
    info_.bytes = end_ - info_.offset;
    if (!has_its_size()) return false;
    auto& tensors = header_.tensors;
    info_.shape.shrink_to_fit();
    tensors.push_back(std::move(info_));
    if (!header_.names.insert(tensors, static_cast<uint32_t>(tensors.size() - 1))) {
      return fault("tensor {} stands twice", in_quotes(tensors.back().name));
    }
    return go(Place::Top);
  }

  bool has_its_size() {
    const auto wanted = tensor_bytes(info_.dtype, info_.shape);
    const std::string_view dtype = dtype_name(info_.dtype);
    if (!wanted) {
      const int bits = dtype_bits(info_.dtype);
      return fault(
          "{}: shape {} of {} {}", tensor(), printable(shape_text(info_.shape)), dtype,
          bits % 8 == 0 ? "has more than 2^64 bits" : "overflows or does not fill whole bytes");
    }
    if (*wanted == info_.bytes) return true;
    return fault("{}: {} bytes lie between its data_offsets, {} of {} takes {}", tensor(),
                 info_.bytes, printable(shape_text(info_.shape)), dtype, *wanted);
  }

  bool wrong(std::string_view seen) {
    switch (place_) {
      case Place::Metadata:
        return fault("__metadata__ is {}, wanted an object of strings", seen);
      case Place::MetadataOpen:
        return fault("__metadata__: {} is {}, wanted a string", in_quotes(metadata_key_), seen);
      case Place::Entry:
        return fault("{} is {}, wanted an object with dtype, shape, data_offsets", tensor(), seen);
      case Place::Dtype:
        return fault("{}: dtype is {}, wanted a name such as \"BF16\"", tensor(), seen);
      case Place::Shape:
        return fault("{}: shape is {}, wanted a list", tensor(), seen);
      case Place::ShapeOpen:
        return fault("{}: shape holds {}, wanted non-negative integers", tensor(), seen);
      case Place::Offsets:
        return fault("{}: data_offsets is {}, wanted a list of begin and end", tensor(), seen);
      case Place::OffsetsOpen:
        return fault("{}: data_offsets holds {}, wanted non-negative integers", tensor(), seen);
      default:
        return fault("the header is {}, wanted an object", seen);
    }
  }

  uint64_t data_bytes_;
  Place place_ = Place::Start;
  Header header_;
  bool has_metadata_ = false;
  std::string metadata_key_;
  TensorInfo info_;
  uint64_t end_ = 0;
  unsigned fields_ = 0;
  size_t num_offsets_ = 0;
  std::string fault_;
};

// Sorts by offset; the first two that leave a hole or overlap are named. Empty tensors may stand at
// any border.
void tile(Header& header, uint64_t data_offset, uint64_t data_bytes, const std::string& file) {
  auto& tensors = header.tensors;
  const auto before = [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  };
  if (!std::is_sorted(tensors.begin(), tensors.end(), before)) {
    std::stable_sort(tensors.begin(), tensors.end(), before);
    header.names = {};
    for (uint32_t i = 0; i < tensors.size(); ++i) header.names.insert(tensors, i);
  }
  uint64_t end = 0;
  const TensorInfo* last = nullptr;
  for (TensorInfo& tensor : tensors) {
    if (tensor.offset != end) {
      fail("safetensors", "{}: tensor {} begins at byte {} of the data, wanted {}, {}", file,
           in_quotes(tensor.name), tensor.offset, end,
           last == nullptr       ? "the start"
           : tensor.offset < end ? "since it overlaps " + in_quotes(last->name)
                                 : "where " + in_quotes(last->name) + " ends; a hole lies between");
    }
    end += tensor.bytes;
    last = &tensor;
  }
  if (end != data_bytes) {
    fail("safetensors", "{}: {} of data follow the last tensor's end at byte {}, wanted none", file,
         counted(data_bytes - end, "byte"), end);
  }
  for (TensorInfo& tensor : tensors) tensor.offset += data_offset;
}

std::string json_string(std::string_view text) {
  return Json(text).dump();  // throws for broken UTF-8: callers have checked
}

}  // namespace

bool NameTable::insert(const std::vector<TensorInfo>& tensors, uint32_t index) {
  if ((used_ + 1) * 2 > slots_.size()) grow(tensors);
  const std::string_view name = tensors[index].name;
  const size_t mask = slots_.size() - 1;
  size_t at = std::hash<std::string_view>{}(name)&mask;
  for (; slots_[at] != 0; at = (at + 1) & mask) {
    if (tensors[slots_[at] - 1].name == name) return false;
  }
  slots_[at] = index + 1;
  ++used_;
  return true;
}

void NameTable::grow(const std::vector<TensorInfo>& tensors) {
  std::vector<uint32_t> old = std::move(slots_);
  slots_.assign(std::max<size_t>(16, old.size() * 2), 0);
  const size_t mask = slots_.size() - 1;
  for (const uint32_t slot : old) {
    if (slot == 0) continue;
    size_t at = std::hash<std::string_view>{}(tensors[slot - 1].name) & mask;
    while (slots_[at] != 0) at = (at + 1) & mask;
    slots_[at] = slot;
  }
}

const TensorInfo* NameTable::find(const std::vector<TensorInfo>& tensors,
                                  std::string_view name) const {
  if (slots_.empty()) return nullptr;
  const size_t mask = slots_.size() - 1;
  for (size_t at = std::hash<std::string_view>{}(name)&mask; slots_[at] != 0;
       at = (at + 1) & mask) {
    if (tensors[slots_[at] - 1].name == name) return &tensors[slots_[at] - 1];
  }
  return nullptr;
}

std::optional<uint64_t> tensor_bytes(Dtype dtype, std::span<const int64_t> shape) {
  uint64_t bits = 1;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(bits, static_cast<uint64_t>(size), &bits)) return {};
  }
  if (__builtin_mul_overflow(bits, static_cast<uint64_t>(dtype_bits(dtype)), &bits)) return {};
  if (bits % 8 != 0) return {};
  return bits / 8;
}

Header parse_header(std::string_view text, uint64_t data_offset, uint64_t data_bytes,
                    const std::string& file) {
  if (const std::string fault = json_forgiven_fault(text); !fault.empty()) {
    fail("safetensors", "{}: the header {}", file, fault);
  }
  if (!text.starts_with('{')) {
    fail("safetensors", "{}: the header starts with {}, wanted '{{'", file,
         text.empty() ? "nothing" : in_quotes(text.substr(0, 8), 20));
  }
  HeaderReader reader(data_bytes);
  if (!Json::sax_parse(text.begin(), text.end(), &reader)) {
    fail("safetensors", "{}: {}", file, reader.fault());
  }
  Header header = reader.take();
  tile(header, data_offset, data_bytes, file);
  return header;
}

std::string header_text(std::span<const TensorView> tensors,
                        const std::map<std::string, std::string>& metadata,
                        const std::string& file) {
  constexpr size_t kAlignment = 64;
  std::string text(8, '\0');
  char separator = '{';
  if (!metadata.empty()) {
    text += "{\"__metadata__\":" + Json(metadata).dump();
    separator = ',';
  }
  uint64_t begin = 0;
  for (const TensorView& tensor : tensors) {
    const uint64_t end = begin + tensor.bytes.size();
    text += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                        separator, json_string(tensor.name), dtype_name(tensor.dtype),
                        fmt::join(tensor.shape, ","), begin, end);
    separator = ',';
    begin = end;
  }
  text += separator == '{' ? "{}" : "}";
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  const uint64_t length = text.size() - 8;
  if (length > kMostHeaderBytes) {
    fail("safetensors",
         "{}: the header would have {} bytes, wanted at most {}; write several files", file, length,
         kMostHeaderBytes);
  }
  for (size_t i = 0; i < 8; ++i) text[i] = static_cast<char>(length >> (8 * i));
  return text;
}

}  // namespace moue
