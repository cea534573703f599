// Writes zip files field by field.
#include "support/zip_file.h"

#include <cstring>
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

// What both places say of an item, from flags to the length of its name.
void put_fields(std::string& out, const ZipItem& item, uint64_t size, const std::string& name) {
  put(out, item.flags);
  put(out, item.method);
  put(out, uint32_t{0});
  put(out, item.crc.value_or(crc32(0, std::as_bytes(std::span(item.data)))));
  put(out, static_cast<uint32_t>(size));
  put(out, static_cast<uint32_t>(size));
  put(out, static_cast<uint16_t>(name.size()));
  put(out, uint16_t{0});
}

void put_large_end(std::string& zip, uint64_t count, uint64_t bytes, uint64_t offset) {
  const uint64_t here = zip.size();
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
  for (const ZipItem& item : items) {
    zip += item.gap;
    const uint64_t header = zip.size(), size = item.size.value_or(item.data.size());
    const std::string& name = item.header_name.empty() ? item.name : item.header_name;
    zip += "PK\x03\x04";
    put(zip, uint16_t{0});
    put_fields(zip, item, item.header_size.value_or(size), name);
    zip += name + item.data + item.behind;
    directory += "PK\x01\x02";
    put(directory, uint32_t{0});
    put_fields(directory, item, size, item.name);
    directory += std::string(10, '\0');
    put(directory, static_cast<uint32_t>(item.offset.value_or(header)));
    directory += item.name;
  }
  const uint64_t offset = zip.size(), bytes = end.bytes.value_or(directory.size());
  const uint64_t count = end.count.value_or(items.size());
  zip += directory;
  if (end.large) put_large_end(zip, count, bytes, offset);
  zip += "PK\x05\x06" + std::string(4, '\0');
  for (int i = 0; i < 2; ++i) put(zip, static_cast<uint16_t>(end.large_alone ? 0xFFFF : count));
  put(zip, static_cast<uint32_t>(end.large_alone ? 0xFFFFFFFF : bytes));
  put(zip, static_cast<uint32_t>(end.large_alone ? 0xFFFFFFFF : offset));
  put(zip, static_cast<uint16_t>(end.comment.size()));
  return zip + end.comment;
}

}  // namespace moue::test
