// Strict parse of a safetensors header: a state machine over nlohmann's SAX events, then the
// layout's checks.
#include "checkpoint/header.h"

#include "core/json.h"
#include "core/text.h"
#include "moue/error.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <limits>
#include <utility>

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
  bool number_integer(int64_t value) {  // has a minus sign
    return wrong(value == 0 ? "0 with a sign" : fmt::format("{}", value));
  }
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
    if (header_.metadata.emplace(metadata_key_, std::move(value)).second) return true;
    return fault("__metadata__: key {} stands twice", in_quotes(metadata_key_));
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
    info_.shape.shrink_to_fit();
    header_.tensors.push_back(std::move(info_));
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

std::string gap_text(const TensorInfo& tensor, const TensorInfo* last, uint64_t end) {
  const std::string start =
      fmt::format("tensor {} begins at byte {} of the data", in_quotes(tensor.name), tensor.offset);
  if (last == nullptr) return fmt::format("{}, wanted 0 for the first", start);
  const std::string before = in_quotes(last->name);
  if (tensor.offset < end) return fmt::format("{}, inside {}, wanted {}", start, before, end);
  return fmt::format("{}, after a hole, wanted {}, where {} ends", start, end, before);
}

// Sorts by offset; the first two that leave a hole or overlap are named. Empty tensors may stand at
// any border.
// Brings the tensors into the order of their offsets, with the table of their names.
void sort(Header& header, const std::string& file) {
  auto& tensors = header.tensors;
  const auto before = [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  };
  if (!std::is_sorted(tensors.begin(), tensors.end(), before)) {
    std::stable_sort(tensors.begin(), tensors.end(), before);
  }
  if (const TensorInfo* twice = header.names.fill(tensors)) {
    fail("safetensors", "{}: tensor {} stands twice", file, in_quotes(twice->name));
  }
}

// Refuses holes, overlaps and bytes of no tensor, then counts offsets from the start of the file.
void tile(std::vector<TensorInfo>& tensors, uint64_t data_offset, uint64_t data_bytes,
          const std::string& file) {
  uint64_t end = 0;
  const TensorInfo* last = nullptr;
  for (TensorInfo& tensor : tensors) {
    if (tensor.offset != end) {
      fail("safetensors", "{}: {}", file, gap_text(tensor, last, end));
    }
    end += tensor.bytes;
    last = &tensor;
  }
  if (end != data_bytes) {
    fail("safetensors", "{}: {} of data follow the last tensor, which ends at {}; wanted none",
         file, counted(data_bytes - end, "byte"), end);
  }
  for (TensorInfo& tensor : tensors) tensor.offset += data_offset;
}

}  // namespace

std::optional<uint64_t> tensor_bytes(Dtype dtype, std::span<const int64_t> shape) {
  uint64_t bits = 1;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(bits, static_cast<uint64_t>(size), &bits)) return {};
  }
  if (__builtin_mul_overflow(bits, static_cast<uint64_t>(dtype_bits(dtype)), &bits)) return {};
  if (bits % 8 != 0) return {};
  return bits / 8;
}

Header parse_header(std::string text, uint64_t data_offset, uint64_t data_bytes,
                    const std::string& file) {
  if (const std::string fault = json_forgiven_fault(text); !fault.empty()) {
    fail("safetensors", "{}: the header {}", file, fault);
  }
  if (!text.starts_with('{')) {
    fail("safetensors", "{}: the header starts with {}, wanted '{{'", file,
         text.empty() ? "nothing" : in_quotes(std::string_view(text).substr(0, 8), 20));
  }
  HeaderReader reader(data_bytes);
  if (!Json::sax_parse(text.begin(), text.end(), &reader)) {
    fail("safetensors", "{}: {}", file, reader.fault());
  }
  text = {};  // up to 100 MB that nobody needs any more
  Header header = reader.take();
  sort(header, file);
  tile(header.tensors, data_offset, data_bytes, file);
  return header;
}

}  // namespace moue
