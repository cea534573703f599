// Reads the directory of a zip file and holds it against each entry's own header.
#include "checkpoint/zip.h"

#include "checkpoint/crc32.h"
#include "core/text.h"
#include "moue/error.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <unordered_set>

namespace moue {
namespace {

constexpr uint64_t kMostDirectoryBytes = 100'000'000;
constexpr uint32_t kEnd = 0x06054b50, kEnd64 = 0x06064b50, kLocator = 0x07064b50;
constexpr uint32_t kListed = 0x02014b50, kLocal = 0x04034b50, kBehind = 0x08074b50;
constexpr uint64_t kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr uint64_t kListedBytes = 46, kLocalBytes = 30;
constexpr uint16_t kSizesBehind = 1 << 3, kUtf8Name = 1 << 11;  // flags of an entry
constexpr uint16_t kNone16 = 0xFFFF;
constexpr uint32_t kNone32 = 0xFFFFFFFF;  // the number stands in 64 bits elsewhere

// The little-endian number at a place that the caller knows to be inside.
template <class T>
T number(std::string_view bytes, size_t at) {
  T value{};
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}
uint16_t u16(std::string_view bytes, size_t at) { return number<uint16_t>(bytes, at); }
uint32_t u32(std::string_view bytes, size_t at) { return number<uint32_t>(bytes, at); }
uint64_t u64(std::string_view bytes, size_t at) { return number<uint64_t>(bytes, at); }

struct Directory {
  uint64_t offset = 0, bytes = 0, entries = 0;
};

struct Listed {
  ZipEntry entry;
  uint64_t header = 0;  // offset of the entry's own header
  uint16_t flags = 0;
};

class ZipReader {
 public:
  explicit ZipReader(const InputFile& file)
      : file_(file), name_(printable(file.path().native(), 400)) {}

  std::vector<ZipEntry> read() const {
    const Directory directory = find_directory();
    std::vector<Listed> listed = list(directory);
    std::ranges::stable_sort(listed, {}, &Listed::header);
    uint64_t end = 0;
    std::vector<ZipEntry> entries;
    for (Listed& one : listed) {
      end = place(one, end, directory.offset);
      entries.push_back(std::move(one.entry));
    }
    if (end != directory.offset) {
      refuse("{} before the directory belong to no entry", counted(directory.offset - end, "byte"));
    }
    return entries;
  }

 private:
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> text, Args&&... args) const {
    fail("pytorch", "{}: {}", name_, fmt::format(text, std::forward<Args>(args)...));
  }

  std::string bytes(uint64_t offset, uint64_t size) const {
    std::string text(size, '\0');
    file_.read_at(offset, std::as_writable_bytes(std::span(text)));
    return text;
  }

  Directory find_directory() const {
    const uint64_t size = file_.size();
    const std::string end = size < kEndBytes ? "" : bytes(size - kEndBytes, kEndBytes);
    if (end.empty() || u32(end, 0) != kEnd) {
      refuse("no end of a zip file in its last {} bytes; is it cut off, or does something follow?",
             kEndBytes);
    }
    if (u16(end, 20) != 0) refuse("the zip file has a comment, wanted none");
    if (u16(end, 4) != 0 || u16(end, 6) != 0 || u16(end, 8) != u16(end, 10)) {
      refuse("the zip file is one of several parts, wanted a whole one");
    }
    Directory found{u32(end, 16), u32(end, 12), u16(end, 10)};
    const uint64_t until = find_64(size - kEndBytes, found);
    if (found.offset > until || found.bytes != until - found.offset) {
      refuse("the zip directory, {} bytes from byte {} on, does not end at byte {}", found.bytes,
             found.offset, until);
    }
    if (found.bytes > kMostDirectoryBytes) {
      refuse("the zip directory has {} bytes, wanted at most {}", found.bytes, kMostDirectoryBytes);
    }
    return found;
  }

  // Takes the numbers of the 64-bit end, where there is one; returns where the directory ends.
  uint64_t find_64(uint64_t end, Directory& found) const {
    const std::string locator =
        end < kLocatorBytes + kEnd64Bytes ? "" : bytes(end - kLocatorBytes, kLocatorBytes);
    if (locator.empty() || u32(locator, 0) != kLocator) {
      if (found.entries != kNone16 && found.bytes != kNone32 && found.offset != kNone32) return end;
      refuse("the zip file lacks the 64-bit end that its numbers ask for");
    }
    const uint64_t at = end - kLocatorBytes - kEnd64Bytes;
    const std::string large = bytes(at, kEnd64Bytes);
    if (u32(locator, 4) != 0 || u64(locator, 8) != at || u32(locator, 16) > 1 ||
        u32(large, 0) != kEnd64 || u64(large, 4) != kEnd64Bytes - 12 || u32(large, 16) != 0 ||
        u32(large, 20) != 0 || u64(large, 24) != u64(large, 32)) {
      refuse("the 64-bit end of the zip file, at byte {}, is broken", at);
    }
    const Directory told{u64(large, 48), u64(large, 40), u64(large, 32)};
    if ((found.entries != kNone16 && found.entries != told.entries) ||
        (found.bytes != kNone32 && found.bytes != told.bytes) ||
        (found.offset != kNone32 && found.offset != told.offset)) {
      refuse("the two ends of the zip file contradict each other");
    }
    found = told;
    return at;
  }

  std::vector<Listed> list(const Directory& directory) const {
    const std::string text = bytes(directory.offset, directory.bytes);
    std::vector<Listed> listed;
    std::string_view left = text;
    while (!left.empty()) {
      if (left.size() < kListedBytes || u32(left, 0) != kListed) {
        refuse("the zip directory is broken at byte {}",
               directory.offset + text.size() - left.size());
      }
      const uint64_t name = u16(left, 28), extra = u16(left, 30), comment = u16(left, 32);
      if (name + extra + comment > left.size() - kListedBytes) {
        refuse("the zip directory is broken at byte {}",
               directory.offset + text.size() - left.size());
      }
      listed.push_back(listed_entry(left, name, left.substr(kListedBytes + name, extra)));
      left.remove_prefix(kListedBytes + name + extra + comment);
    }
    if (listed.size() != directory.entries) {
      refuse("the zip directory has {} entries, {} are told", listed.size(), directory.entries);
    }
    std::unordered_set<std::string_view> names;
    for (const Listed& one : listed) {
      if (!names.insert(one.entry.name).second) {
        refuse("entry {} stands twice", in_quotes(one.entry.name));
      }
    }
    return listed;
  }

  Listed listed_entry(std::string_view fields, size_t name_bytes, std::string_view extra) const {
    Listed one;
    one.flags = u16(fields, 8);
    one.entry = {std::string(fields.substr(kListedBytes, name_bytes)), 0, u32(fields, 24),
                 u32(fields, 16)};
    one.header = u32(fields, 42);
    const std::string shown = in_quotes(one.entry.name);
    if (!is_good_name(one.entry.name)) refuse("entry {} has no plain name", shown);
    if ((one.flags & ~(kSizesBehind | kUtf8Name)) != 0) {
      refuse("entry {} has flags {:#06x}{}", shown, one.flags,
             (one.flags & 1) != 0 ? ", it is encrypted" : "");
    }
    if (u16(fields, 10) != 0) {
      refuse("entry {} is compressed (method {}), wanted stored, as torch.save writes it", shown,
             u16(fields, 10));
    }
    uint64_t packed = u32(fields, 20);
    read_64(extra, one, packed);
    if (packed != one.entry.size) {
      refuse("entry {} takes {} bytes and holds {}, wanted as many", shown, packed, one.entry.size);
    }
    if (u16(fields, 34) != 0) refuse("entry {} is in another part of the zip file", shown);
    return one;
  }

  // Numbers that the 32 bits could not hold, in the order of the format.
  void read_64(std::string_view extra, Listed& one, uint64_t& packed) const {
    std::string_view large;
    while (extra.size() >= 4) {
      const size_t size = u16(extra, 2);
      if (size > extra.size() - 4) break;
      if (u16(extra, 0) == 1) large = extra.substr(4, size);
      extra.remove_prefix(4 + size);
    }
    for (uint64_t* value : {&one.entry.size, &packed, &one.header}) {
      if (*value != kNone32) continue;
      if (large.size() < 8) refuse("entry {} lacks its 64-bit sizes", in_quotes(one.entry.name));
      *value = u64(large, 0);
      large.remove_prefix(8);
    }
  }

  static bool is_good_name(std::string_view name) {
    return !name.empty() && is_utf8(name) && !name.starts_with('/') &&
           name.find_first_of(std::string_view("\\\0", 2)) == name.npos &&
           name.find("..") == name.npos;
  }

  // Finds the entry's data behind its own header, which must begin at `begin`; returns where the
  // entry ends.
  uint64_t place(Listed& one, uint64_t begin, uint64_t limit) const {
    ZipEntry& entry = one.entry;
    const std::string shown = in_quotes(entry.name);
    if (one.header < begin) refuse("entry {} overlaps the one before it", shown);
    if (one.header > begin) {
      refuse("{} before entry {} belong to none", counted(one.header - begin, "byte"), shown);
    }
    if (limit - begin < kLocalBytes) refuse("entry {} has no header of its own", shown);
    const std::string header = bytes(begin, kLocalBytes);
    const uint64_t name = u16(header, 26), extra = u16(header, 28);
    if (u32(header, 0) != kLocal || name != entry.name.size() ||
        name + extra > limit - begin - kLocalBytes ||
        bytes(begin + kLocalBytes, name) != entry.name || !agrees(header, one)) {
      refuse("entry {}: its own header at byte {} is not what the directory says", shown, begin);
    }
    entry.offset = begin + kLocalBytes + name + extra;
    if (entry.size > limit - entry.offset) {
      refuse("entry {} has {} bytes, {} follow", shown, entry.size, limit - entry.offset);
    }
    const uint64_t end = entry.offset + entry.size;
    return (one.flags & kSizesBehind) != 0 ? skip_behind(entry, end, limit) : end;
  }

  // Where sizes follow the data, the header may hold zeros; where they are large, all ones.
  static bool agrees(std::string_view header, const Listed& one) {
    const bool behind = (one.flags & kSizesBehind) != 0;
    const auto fits = [&](uint32_t told, uint64_t value) {
      return told == value || (behind && told == 0);
    };
    const uint64_t size = std::min<uint64_t>(one.entry.size, kNone32);
    return u16(header, 6) == one.flags && u16(header, 8) == 0 &&
           fits(u32(header, 14), one.entry.crc) &&
           (fits(u32(header, 18), size) || u32(header, 18) == kNone32) &&
           (fits(u32(header, 22), size) || u32(header, 22) == kNone32);
  }

  uint64_t skip_behind(const ZipEntry& entry, uint64_t at, uint64_t limit) const {
    const auto matches = [&](uint64_t size) {
      if (limit - at < size) return false;
      const std::string text = bytes(at, size);
      if (u32(text, 0) != kBehind || u32(text, 4) != entry.crc) return false;
      return size == 16 ? u32(text, 8) == entry.size && u32(text, 12) == entry.size
                        : u64(text, 8) == entry.size && u64(text, 16) == entry.size;
    };
    for (const uint64_t size : {uint64_t{16}, uint64_t{24}}) {
      if (matches(size)) return at + size;
    }
    refuse("entry {}: the sizes behind its data, at byte {}, are not what the directory says",
           in_quotes(entry.name), at);
  }

  const InputFile& file_;
  std::string name_;
};

}  // namespace

std::vector<ZipEntry> read_zip(const InputFile& file) { return ZipReader(file).read(); }

void check_crc(const InputFile& file, const ZipEntry& entry) {
  constexpr uint64_t kPiece = 1 << 20;
  std::vector<std::byte> buffer(std::min(entry.size, kPiece));
  uint32_t crc = 0;
  for (uint64_t done = 0; done < entry.size;) {
    const auto piece = std::span(buffer).first(std::min(entry.size - done, kPiece));
    file.read_at(entry.offset + done, piece);
    crc = crc32(crc, piece);
    done += piece.size();
  }
  if (crc == entry.crc) return;
  fail("pytorch", "{}: entry {} sums to {:08x}, its CRC says {:08x}; the file is damaged",
       printable(file.path().native(), 400), in_quotes(entry.name), crc, entry.crc);
}

}  // namespace moue
