// Writes zip files field by field.
#include "support/zip_file.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <span>

#include "checkpoint/crc32.h"

namespace moue::test {
namespace {

template <class T>
void put(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

constexpr uint64_t kLargest = 0xFFFFFFFF;

uint64_t size_of(const ZipItem& item) { return item.size.value_or(item.data.size() + item.hole); }

// Sizes, and in the directory the offset, that need 64 bits.
std::string extra_of(uint64_t size, uint64_t offset) {
  std::string numbers;
  if (size > kLargest) {
    put(numbers, size);
    put(numbers, size);
  }
  if (offset > kLargest) put(numbers, offset);
  if (numbers.empty()) return "";
  std::string extra;
  put(extra, uint16_t{1});
  put(extra, static_cast<uint16_t>(numbers.size()));
  return extra + numbers;
}

// What both places say of an item, from flags to the length of what follows its name.
void put_fields(std::string& out, const ZipItem& item, uint64_t size, const std::string& name,
                const std::string& extra) {
  put(out, item.flags);
  put(out, item.method);
  put(out, uint32_t{0});
  put(out, item.crc.value_or(crc32(0, std::as_bytes(std::span(item.data)))));
  put(out, static_cast<uint32_t>(std::min(size, kLargest)));
  put(out, static_cast<uint32_t>(std::min(size, kLargest)));
  put(out, static_cast<uint16_t>(name.size()));
  put(out, static_cast<uint16_t>(extra.size()));
}

void put_large_end(std::string& zip, uint64_t count, uint64_t bytes, uint64_t offset) {
  const uint64_t here = offset + bytes;
  zip += "PK\x06\x06";
  put(zip, uint64_t{44});
  zip += std::string(12, '\0');
  for (const uint64_t value : {count, count, bytes, offset}) put(zip, value);
  zip += "PK\x06\x07" + std::string(4, '\0');
  put(zip, here);
  put(zip, uint32_t{1});
}

}  // namespace

std::string zip_descriptor(uint32_t crc, uint64_t size, bool large) {
  std::string out = "PK\x07\x08";
  put(out, crc);
  for (int i = 0; i < 2; ++i) {
    if (large) {
      put(out, size);
    } else {
      put(out, static_cast<uint32_t>(size));
    }
  }
  return out;
}

std::string zip_file(const std::vector<ZipItem>& items, const ZipEnd& end) {
  std::string zip, directory;
  uint64_t skipped = 0;  // holes
  for (const ZipItem& item : items) {
    zip += item.gap;
    const uint64_t header = item.offset.value_or(zip.size() + skipped), size = size_of(item);
    const std::string& name = item.header_name.empty() ? item.name : item.header_name;
    const std::string extra = extra_of(size, 0), listed_extra = extra_of(size, header);
    zip += "PK\x03\x04";
    put(zip, uint16_t{0});
    put_fields(zip, item, item.header_size.value_or(size), name, extra);
    zip += name + extra + item.data + item.behind;
    skipped += item.hole;
    directory += "PK\x01\x02";
    put(directory, uint32_t{0});
    put_fields(directory, item, size, item.name, listed_extra);
    directory += std::string(10, '\0');
    put(directory, static_cast<uint32_t>(std::min(header, kLargest)));
    directory += item.name + listed_extra;
  }
  const uint64_t offset = zip.size() + skipped, bytes = end.bytes.value_or(directory.size());
  const uint64_t count = end.count.value_or(items.size());
  zip += directory;
  if (end.large) put_large_end(zip, count, bytes, offset);
  zip += "PK\x05\x06" + std::string(4, '\0');
  for (int i = 0; i < 2; ++i) put(zip, static_cast<uint16_t>(end.large_alone ? 0xFFFF : count));
  put(zip, static_cast<uint32_t>(end.large_alone ? kLargest : bytes));
  put(zip, static_cast<uint32_t>(end.large_alone ? kLargest : std::min(offset, kLargest)));
  put(zip, static_cast<uint16_t>(end.comment.size()));
  return zip + end.comment;
}

void write_zip(const std::filesystem::path& file, const std::vector<ZipItem>& items) {
  const std::string zip = zip_file(items, {.large = true});
  std::ofstream out(file, std::ios::binary);
  size_t done = 0;
  for (const ZipItem& item : items) {
    if (item.hole == 0) continue;
    const size_t next = zip.find("PK\x03\x04", zip.find(item.name, done));
    out.write(zip.data() + done, static_cast<std::streamsize>(next - done));
    out.seekp(static_cast<std::streamoff>(item.hole), std::ios::cur);
    done = next;
  }
  out.write(zip.data() + done, static_cast<std::streamsize>(zip.size() - done));
}

}  // namespace moue::test
