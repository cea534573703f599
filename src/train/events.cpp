// TensorBoard's event files: the part of protocol buffers and of TFRecord that scalars need.
#include "train/events.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <chrono>

#include "core/disk.h"
#include "core/text.h"
#include "core/tree.h"
#include "moue/error.h"

namespace fs = std::filesystem;

namespace moue {
namespace {

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0U);
    table[byte] = crc;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kTable = make_table();

template <class T>
void put_little_endian(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(value >> (8 * i) & 255U);
}

// Sums of what holds sums itself are masked (tensorflow/core/lib/hash/crc32c.h).
uint32_t masked(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xA282EAD8U; }

enum WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

// A message under construction; fields are written in the order of their numbers.
class Message {
 public:
  void real(int field, double value) {
    key(field, kFixed64);
    put_little_endian(text_, std::bit_cast<uint64_t>(value));
  }
  void single(int field, float value) {
    key(field, kFixed32);
    put_little_endian(text_, std::bit_cast<uint32_t>(value));
  }
  // proto3 leaves out what is 0.
  void whole(int field, int64_t value) {
    if (value == 0) return;
    key(field, kVarint);
    varint(static_cast<uint64_t>(value));
  }
  void bytes(int field, std::string_view value) {
    key(field, kBytes);
    varint(value.size());
    text_ += value;
  }
  const std::string& text() const { return text_; }

 private:
  void key(int field, WireType type) { varint(static_cast<uint64_t>(field) << 3 | type); }
  void varint(uint64_t value) {
    for (; value >= 128; value >>= 7) text_ += static_cast<char>(value | 128U);
    text_ += static_cast<char>(value);
  }
  std::string text_;
};

// Fields of Event in tensorflow/core/util/event.proto.
enum EventField : uint8_t {
  kWallTime = 1,
  kStep = 2,
  kFileVersion = 3,
  kSummary = 5,
  kSessionLog = 7
};

Message event(double wall_time, int64_t step) {
  Message event;
  event.real(kWallTime, wall_time);
  event.whole(kStep, step);
  return event;
}

double now() {
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(since).count();
}

std::string host() {
  std::array<char, 65> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "host";
  std::string text(name.data());
  std::replace_if(
      text.begin(), text.end(),
      [](unsigned char c) { return std::isalnum(c) == 0 && c != '-' && c != '.'; }, '-');
  return text;
}

constexpr std::string_view kPrefix = "events.out.tfevents.";

// The time in a file's name; 0 where it is not an event file's.
int64_t seconds_of(std::string_view name) {
  int64_t seconds = 0;
  if (!name.starts_with(kPrefix)) return 0;
  name.remove_prefix(kPrefix.size());
  std::from_chars(name.data(), name.data() + name.size(), seconds);
  return seconds;
}

// As TensorFlow names them. Readers take files in the order of their names.
std::string new_name(const fs::path& directory) {
  auto seconds = static_cast<int64_t>(now());
  for (const std::string& name : names_in(directory, "train"))
    seconds = std::max(seconds, seconds_of(name) + 1);
  return fmt::format("{}{:010}.{}.{}.0", kPrefix, seconds, host(), ::getpid());
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = ~0U;
  for (const char byte : bytes)
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<unsigned char>(byte)) & 255U];
  return ~crc;
}

std::string tf_record(std::string_view data) {
  std::string record;
  put_little_endian(record, static_cast<uint64_t>(data.size()));
  put_little_endian(record, masked(crc32c(record)));
  record += data;
  put_little_endian(record, masked(crc32c(data)));
  return record;
}

std::string version_event(double wall_time) {
  Message message = event(wall_time, 0);
  message.bytes(kFileVersion, "brain.Event:2");
  return message.text();
}

std::string start_event(double wall_time, int64_t step) {
  constexpr int kStatus = 1, kStart = 1;
  Message log, message = event(wall_time, step);
  log.whole(kStatus, kStart);
  message.bytes(kSessionLog, log.text());
  return message.text();
}

std::string scalar_event(double wall_time, int64_t step, std::span<const Scalar> scalars) {
  constexpr int kValue = 1, kTag = 1, kSimpleValue = 2;
  Message summary, message = event(wall_time, step);
  for (const Scalar& scalar : scalars) {
    Message value;
    value.bytes(kTag, scalar.tag);
    value.single(kSimpleValue, static_cast<float>(scalar.value));
    summary.bytes(kValue, value.text());
  }
  message.bytes(kSummary, summary.text());
  return message.text();
}

EventFile::EventFile(const fs::path& directory, int64_t first_step) {
  make_directories(directory, "train");
  path_ = directory / new_name(directory);
  fd_ = Descriptor(disk::open(path_, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW));
  if (fd_.get() < 0) fail_disk("train", "{} cannot be made: {}", path_.string(), error_text(errno));
  const double time = now();
  append(fd_, tf_record(version_event(time)) + tf_record(start_event(time, first_step)), path_,
         "train");
}

void EventFile::add(int64_t step, std::span<const Scalar> scalars) {
  append(fd_, tf_record(scalar_event(now(), step, scalars)), path_, "train");
}

}  // namespace moue
