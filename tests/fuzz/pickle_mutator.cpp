// Cuts pickles into opcodes and zip files into entries, changes one, and puts them together again.
#include "fuzz/pickle_mutator.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "support/zip_file.h"

namespace moue::fuzz {
namespace {

// Bytes of an opcode with its argument; 1 for what is not known.
size_t opcode_bytes(std::string_view left) {
  const auto counted = [&](size_t width) {
    uint64_t count = 0;
    if (left.size() > width) std::memcpy(&count, left.data() + 1, width);
    return 1 + width + std::min<uint64_t>(count, left.size());
  };
  switch (static_cast<uint8_t>(left[0])) {
    case 0x80:
    case 'K':
    case 'q':
    case 'h':
    case 0x82:
      return 2;
    case 'M':
    case 0x83:
      return 3;
    case 'J':
    case 'r':
    case 'j':
    case 0x84:
      return 5;
    case 'G':
    case 0x95:
      return 9;
    case 0x8a:
    case 0x8c:
    case 'U':
      return counted(1);
    case 'X':
    case 'T':
    case 'B':
      return counted(4);
    case 'c':
    case 'i': {
      const size_t first = left.find('\n');
      const size_t second = first == left.npos ? first : left.find('\n', first + 1);
      return second == left.npos ? left.size() : second + 1;
    }
    default:
      return 1;
  }
}

std::vector<std::string> opcodes_of(std::string_view pickle) {
  std::vector<std::string> opcodes;
  while (!pickle.empty()) {
    const size_t size = std::min(opcode_bytes(pickle), pickle.size());
    opcodes.emplace_back(pickle.substr(0, size));
    pickle.remove_prefix(size);
  }
  return opcodes;
}

using namespace std::string_literals;

const std::vector<std::string>& spare_opcodes() {
  static const std::vector<std::string> kSpare = {"("s,
                                                  "."s,
                                                  "0"s,
                                                  "1"s,
                                                  "2"s,
                                                  "N"s,
                                                  "\x88"s,
                                                  "\x89"s,
                                                  "K\x00"s,
                                                  "K\x01"s,
                                                  "K\x05"s,
                                                  "K\xff"s,
                                                  "M\xff\xff"s,
                                                  "J\xff\xff\xff\xff"s,
                                                  "J\xff\xff\xff\x7f"s,
                                                  "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"s,
                                                  "\x8a\x08\0\0\0\0\0\0\0\x80"s,
                                                  "\x8a\x00"s,
                                                  ")"s,
                                                  "t"s,
                                                  "\x85"s,
                                                  "\x86"s,
                                                  "\x87"s,
                                                  "]"s,
                                                  "}"s,
                                                  "a"s,
                                                  "e"s,
                                                  "s"s,
                                                  "u"s,
                                                  "q\x00"s,
                                                  "q\x10"s,
                                                  "h\x00"s,
                                                  "h\x03"s,
                                                  "r\xff\xff\xff\x7f"s,
                                                  "r\x40\0\0\0"s,
                                                  "j\x01\0\0\0"s,
                                                  "Q"s,
                                                  "R"s,
                                                  "b"s,
                                                  "o"s,
                                                  "\x81"s,
                                                  "\x82\x01"s,
                                                  "\x93"s,
                                                  "\x94"s,
                                                  "X\x01\0\0\0a"s,
                                                  "X\x00\0\0\0"s,
                                                  "X\x07\0\0\0storage"s,
                                                  "X\x01\0\0\0000"s,
                                                  "X\xff\xff\xff\xff"s,
                                                  "cos\nsystem\n"s,
                                                  "cbuiltins\neval\n"s,
                                                  "ccollections\nOrderedDict\n"s,
                                                  "ctorch._utils\n_rebuild_tensor_v2\n"s,
                                                  "ctorch._utils\n_rebuild_tensor_v3\n"s,
                                                  "ctorch._utils\n_rebuild_parameter\n"s,
                                                  "ctorch\nFloatStorage\n"s,
                                                  "ctorch\nByteStorage\n"s,
                                                  "ctorch.storage\nUntypedStorage\n"s,
                                                  "ctorch\nuint16\n"s,
                                                  "ctorch\nfloat4_e2m1fn_x2\n"s,
                                                  "G\x7f\xf8\0\0\0\0\0\0"s};
  return kSpare;
}

using Entry = test::ZipItem;

template <class T>
T number(std::string_view bytes, size_t at) {
  T value{};
  if (at + sizeof(T) <= bytes.size()) std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

// What the directory of a small zip file lists.
std::vector<Entry> entries_of(std::string_view zip) {
  std::vector<Entry> entries;
  for (size_t at = zip.find("PK\x01\x02"); at != zip.npos; at = zip.find("PK\x01\x02", at + 4)) {
    const size_t name = number<uint16_t>(zip, at + 28), header = number<uint32_t>(zip, at + 42);
    const uint32_t size = number<uint32_t>(zip, at + 24);
    if (at + 46 + name > zip.size() || header + 30 > zip.size()) continue;
    const size_t data =
        header + 30 + number<uint16_t>(zip, header + 26) + number<uint16_t>(zip, header + 28);
    if (data > zip.size() || size > zip.size() - data) continue;
    entries.push_back({std::string(zip.substr(at + 46, name)), std::string(zip.substr(data, size)),
                       number<uint32_t>(zip, at + 16), size});
  }
  return entries;
}

void change(std::vector<Entry>& entries, Random& random) {
  Entry& one = entries[below(random, entries.size())];
  Entry& other = entries[below(random, entries.size())];
  const auto pickle = std::ranges::find_if(
      entries, [](const Entry& entry) { return entry.name.ends_with("data.pkl"); });
  switch (below(random, 12)) {
    case 0:
      return std::swap(one.name, other.name);
    case 1:
      one.name = other.name;
      return;
    case 2:
      one.data += std::string(1 + below(random, 40), 'x');
      return;
    case 3:
      one.data.resize(below(random, one.data.size() + 1));
      return;
    case 4:
      one.size = one.data.size() ^ uint64_t { 1 } << below(random, 32);
      return;
    case 5:
      one.method = static_cast<uint16_t>(random() % 10);
      return;
    case 6:
      one.flags = static_cast<uint16_t>(1U << below(random, 16));
      return;
    case 7:
      one.name.insert(below(random, one.name.size() + 1), 1, static_cast<char>(random()));
      return;
    case 8:
      entries.push_back(one);
      return;
    default:
      if (pickle != entries.end()) pickle->data = mutate_pickle(pickle->data, random);
  }
}

}  // namespace

std::string mutate_pickle(const std::string& pickle, Random& random) {
  std::vector<std::string> opcodes = opcodes_of(pickle);
  for (size_t i = 1 + below(random, 3); i > 0 && !opcodes.empty(); --i) {
    const size_t at = below(random, opcodes.size());
    const auto place = opcodes.begin() + static_cast<ptrdiff_t>(at);
    const std::string& spare = spare_opcodes()[below(random, spare_opcodes().size())];
    const std::string other = opcodes[below(random, opcodes.size())];
    switch (below(random, 7)) {
      case 0:
        opcodes.erase(place);
        break;
      case 1:
        opcodes.insert(place, spare);
        break;
      case 2:
        *place = spare;
        break;
      case 3:
        opcodes.insert(place, other);
        break;
      case 4:
        *place = other;
        break;
      case 5: {  // a part again, as often as a billion laughs need
        const size_t count = 1 + below(random, std::min<size_t>(opcodes.size() - at, 30));
        const std::vector<std::string> part(place, place + static_cast<ptrdiff_t>(count));
        opcodes.insert(place, part.begin(), part.end());
        break;
      }
      default:
        (*place)[below(random, place->size())] = static_cast<char>(random());
    }
  }
  std::string changed;
  for (const std::string& opcode : opcodes) changed += opcode;
  return changed;
}

std::string mutate_zip(const std::string& zip, Random& random) {
  std::vector<Entry> entries = entries_of(zip);
  if (entries.empty()) return zip + "PK";
  for (size_t i = 1 + below(random, 2); i > 0; --i) change(entries, random);
  for (Entry& entry : entries) {
    if (random() % 16 != 0) entry.crc.reset();
    if (random() % 8 != 0) entry.size.reset();
  }
  std::string changed = test::zip_file(entries, {.large = random() % 2 == 0});
  if (random() % 8 == 0) changed[below(random, changed.size())] = static_cast<char>(random());
  return changed;
}

}  // namespace moue::fuzz
