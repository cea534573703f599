// A range of a strided tensor is cut into boxes; a box is read in the order of the file.
#include "checkpoint/strided.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <numeric>
#include <vector>

namespace moue {
namespace {

constexpr uint64_t kBufferBytes = 1 << 20;

// One axis of a box: how many steps, how far a step goes in the file and in the result, both in
// bytes.
struct Axis {
  uint64_t count, in_file, in_result;
};

class BoxReader {
 public:
  BoxReader(uint64_t width, std::byte* result, const ReadAt& read_at)
      : width_(width), result_(result), read_at_(read_at) {}

  void read(uint64_t offset, uint64_t at, std::vector<Axis> axes) {
    std::erase_if(axes, [](const Axis& axis) { return axis.count == 1; });
    std::ranges::stable_sort(axes, std::ranges::greater(), &Axis::in_file);
    descend(offset, at, axes);
  }

 private:
  // Outer axes one by one, until what is left fits the buffer.
  void descend(uint64_t offset, uint64_t at, std::span<const Axis> axes) {
    const uint64_t bytes = extent(axes);
    if (bytes <= kBufferBytes && (axes.empty() || is_dense(axes, bytes))) {
      buffer_.resize(bytes);
      read_at_(offset, buffer_);
      return scatter(buffer_.data(), at, axes);
    }
    const Axis& outer = axes.front();
    if (axes.size() > 1) {
      for (uint64_t i = 0; i < outer.count; ++i) {
        descend(offset + i * outer.in_file, at + i * outer.in_result, axes.subspan(1));
      }
      return;
    }
    // One long axis: piece by piece.
    const uint64_t piece =
        is_dense(axes, bytes) ? std::max<uint64_t>(1, kBufferBytes / outer.in_file) : 1;
    for (uint64_t i = 0; i < outer.count; i += piece) {
      const Axis part{std::min(piece, outer.count - i), outer.in_file, outer.in_result};
      buffer_.resize((part.count - 1) * part.in_file + width_);
      read_at_(offset + i * outer.in_file, buffer_);
      scatter(buffer_.data(), at + i * outer.in_result, {&part, 1});
    }
  }

  uint64_t extent(std::span<const Axis> axes) const {
    uint64_t bytes = width_;
    for (const Axis& axis : axes) bytes += (axis.count - 1) * axis.in_file;
    return bytes;
  }

  // Is a fair part of the extent wanted, so that reading all of it is cheaper than picking?
  bool is_dense(std::span<const Axis> axes, uint64_t bytes) const {
    uint64_t wanted = width_;
    for (const Axis& axis : axes) wanted *= axis.count;
    return bytes / 8 <= wanted || bytes <= 4096;
  }

  void scatter(const std::byte* from, uint64_t at, std::span<const Axis> axes) {
    if (axes.empty()) {
      std::memcpy(result_ + at, from, width_);
      return;
    }
    const Axis& axis = axes.front();
    if (axes.size() > 1) {
      for (uint64_t i = 0; i < axis.count; ++i) {
        scatter(from + i * axis.in_file, at + i * axis.in_result, axes.subspan(1));
      }
    } else if (axis.in_file == width_ && axis.in_result == width_) {
      std::memcpy(result_ + at, from, axis.count * width_);
    } else {
      pick(from, result_ + at, axis);
    }
  }

  void pick(const std::byte* from, std::byte* to, const Axis& axis) const {
    const auto each = [&]<class T>(T value) {
      for (uint64_t i = 0; i < axis.count; ++i) {
        std::memcpy(&value, from + i * axis.in_file, sizeof(T));
        std::memcpy(to + i * axis.in_result, &value, sizeof(T));
      }
    };
    switch (width_) {
      case 1:
        return each(uint8_t{});
      case 2:
        return each(uint16_t{});
      case 4:
        return each(uint32_t{});
      default:
        assert(width_ == 8);
        return each(uint64_t{});
    }
  }

  uint64_t width_;
  std::byte* result_;
  const ReadAt& read_at_;
  std::vector<std::byte> buffer_;
};

// Elements [first, last) of the tensor, counted row by row.
class RangeReader {
 public:
  RangeReader(const Strided& strided, uint64_t width, BoxReader& box) : width_(width), box_(box) {
    uint64_t inner = 1;
    for (size_t i = strided.shape.size(); i-- > 0;) {
      axes_.insert(axes_.begin(), {static_cast<uint64_t>(strided.shape[i]),
                                   static_cast<uint64_t>(strided.strides[i]) * width, inner});
      inner *= static_cast<uint64_t>(strided.shape[i]);
    }
  }

  // `offset`: in the file, of index 0 of the axes from `axis` on; `at`: where `first` goes.
  void read(size_t axis, uint64_t offset, uint64_t first, uint64_t last, uint64_t at) {
    if (first == last) return;
    if (axis == axes_.size()) return box_.read(offset, at, {});
    const Axis& outer = axes_[axis];
    const uint64_t inner = outer.in_result;  // elements of one index
    const uint64_t begin = first / inner, begin_rest = first % inner;
    const uint64_t end = last / inner, end_rest = last % inner;
    if (begin == end) {
      return read(axis + 1, offset + begin * outer.in_file, begin_rest, end_rest, at);
    }
    uint64_t whole = begin;
    if (begin_rest != 0) {
      read(axis + 1, offset + begin * outer.in_file, begin_rest, inner, at);
      at += (inner - begin_rest) * width_;
      ++whole;
    }
    if (whole < end) {
      box_.read(offset + whole * outer.in_file, at, box(axis, end - whole));
      at += (end - whole) * inner * width_;
    }
    read(axis + 1, offset + end * outer.in_file, 0, end_rest, at);
  }

 private:
  std::vector<Axis> box(size_t axis, uint64_t count) const {
    std::vector<Axis> axes(axes_.begin() + static_cast<ptrdiff_t>(axis), axes_.end());
    axes.front().count = count;
    for (Axis& one : axes) one.in_result *= width_;
    return axes;
  }

  uint64_t width_;
  BoxReader& box_;
  std::vector<Axis> axes_;  // in_result counts elements
};

}  // namespace

bool is_row_major(std::span<const int64_t> shape, std::span<const int64_t> strides) {
  if (std::ranges::find(shape, 0) != shape.end()) return true;
  uint64_t inner = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    if (shape[i] != 1 && static_cast<uint64_t>(strides[i]) != inner) return false;
    inner *= static_cast<uint64_t>(shape[i]);
  }
  return true;
}

std::optional<uint64_t> reach(std::span<const int64_t> shape, std::span<const int64_t> strides) {
  uint64_t last = 0;
  bool is_empty = false;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 0 || strides[i] < 0) return {};
    if (shape[i] == 0) is_empty = true;
    uint64_t steps = 0;
    if (shape[i] > 0 && (__builtin_mul_overflow(static_cast<uint64_t>(shape[i] - 1),
                                                static_cast<uint64_t>(strides[i]), &steps) ||
                         __builtin_add_overflow(last, steps, &last))) {
      return {};
    }
  }
  if (is_empty) return 0;
  if (__builtin_add_overflow(last, uint64_t{1}, &last)) return {};
  return last;
}

void read_strided(const Strided& strided, uint64_t offset, uint64_t width, uint64_t from,
                  std::span<std::byte> out, const ReadAt& read_at) {
  if (out.empty()) return;
  // A range may begin and end inside an element.
  const uint64_t first = from / width, last = (from + out.size() + width - 1) / width;
  const bool is_whole = from % width == 0 && out.size() % width == 0;
  std::vector<std::byte> around(is_whole ? 0 : (last - first) * width);
  BoxReader box(width, is_whole ? out.data() : around.data(), read_at);
  RangeReader(strided, width, box).read(0, offset, first, last, 0);
  if (!is_whole) std::memcpy(out.data(), around.data() + from % width, out.size());
}

}  // namespace moue
