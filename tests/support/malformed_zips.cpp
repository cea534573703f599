// The catalogue of zip files that must be refused, and of odd ones that load.
#include <fmt/format.h>

#include "checkpoint/crc32.h"
#include "support/pickles.h"
#include "support/zip_file.h"

namespace moue::test {
namespace {

using namespace std::string_literals;
using Items = std::vector<ZipItem>;

// The items of a good file; each case then changes one.
Items good() {
  const std::string pickle = pickled_dict(pickled_text("a") + pickled_tensor(0, {2, 3}, {3, 1}));
  return {{"a/data.pkl", pickle}, {"a/data/0", std::string(24, 'f')}, {"a/version", "3\n"}};
}

template <class Change>
std::string changed(Change change, const ZipEnd& end = {}) {
  Items items = good();
  change(items);
  return zip_file(items, end);
}

std::string added(const ZipItem& item) {
  return changed([&](Items& items) { items.push_back(item); });
}

uint32_t sum(std::string_view text) { return crc32(0, std::as_bytes(std::span(text))); }

std::vector<FileCase> bad_ends() {
  const std::string whole = zip_file(good()), large = zip_file(good(), {.large = true});
  const std::string cut =
      "no end of a zip file in its last 22 bytes; is it cut off, or does something follow?";
  std::string moved = large;
  moved[moved.size() - 22 - 20 + 8] ^= 1;
  std::string version = large;
  version[version.size() - 22 - 20 - 56 + 4] ^= 1;
  const auto end_at = [&](std::string bytes, size_t from_end, char value) {
    bytes[bytes.size() - from_end] = value;
    return bytes;
  };
  return {
      {"PK and nothing", "PK\x03\x04", cut},
      {"cut off by one", whole.substr(0, whole.size() - 1), cut},
      {"a byte behind", whole + "x", cut},
      {"a comment", zip_file(good(), {.comment = "hi"}), cut},
      {"a comment told, none there", end_at(whole, 2, 1),
       "the zip file has a comment, wanted none"},
      {"a second part", end_at(whole, 18, 1),
       "the zip file is one of several parts, wanted a whole one"},
      {"entries elsewhere", end_at(whole, 12, 9),
       "the zip file is one of several parts, wanted a whole one"},
      {"one entry more told", zip_file(good(), {.count = 4}),
       "the zip directory has 3 entries, 4 are told"},
      {"one entry less told", zip_file(good(), {.count = 2}),
       "the zip directory has 3 entries, 2 are told"},
      {"a directory told shorter", zip_file(good(), {.bytes = 5}),
       fmt::format("the zip directory, 5 bytes from byte {} on, does not end at byte {}",
                   whole.find("PK\x01\x02"), whole.size() - 22)},
      {"a directory of 4 GB", zip_file(good(), {.bytes = 0xFFFFFFFE}),
       fmt::format("the zip directory, 4294967294 bytes from byte {} on, does not end at byte {}",
                   whole.find("PK\x01\x02"), whole.size() - 22)},
      {"all ones without a 64-bit end", zip_file(good(), {.large_alone = true}),
       "the zip file lacks the 64-bit end that its numbers ask for"},
      {"the 64-bit end elsewhere", moved,
       fmt::format("the 64-bit end of the zip file, at byte {}, is broken", large.size() - 98)},
      {"the 64-bit end of another size", version,
       fmt::format("the 64-bit end of the zip file, at byte {}, is broken", large.size() - 98)},
      {"ends that contradict", end_at(end_at(large, 14, 2), 12, 2),
       "the two ends of the zip file contradict each other"},
      {"a broken directory",
       [&] {
         std::string bytes = whole;
         bytes[bytes.find("PK\x01\x02") + 2] = 9;
         return bytes;
       }(),
       fmt::format("the zip directory is broken at byte {}", whole.find("PK\x01\x02"))},
      {"a name beyond the directory",
       [&] {
         std::string bytes = whole;
         bytes[bytes.rfind("PK\x01\x02") + 29] = 9;
         return bytes;
       }(),
       fmt::format("the zip directory is broken at byte {}", whole.rfind("PK\x01\x02"))},
      {"no entry", zip_file({}),
       "the zip file has 0 pickles named data.pkl, wanted one; was it not written by torch.save?"},
  };
}

std::vector<FileCase> bad_entries() {
  const auto data = [](auto change) { return changed([&](Items& items) { change(items[1]); }); };
  const std::string header = "its own header at byte ";
  const size_t second = zip_file(good()).find("PK\x03\x04", 4);
  const std::string differs =
      fmt::format("entry 'a/data/0': {}{} is not what the directory says", header, second);
  return {
      {"deflated", data([](ZipItem& item) { item.method = 8; }),
       "entry 'a/data/0' is compressed (method 8), wanted stored, as torch.save writes it"},
      {"packed with zstd", data([](ZipItem& item) { item.method = 93; }),
       "entry 'a/data/0' is compressed (method 93), wanted stored, as torch.save writes it"},
      {"encrypted", data([](ZipItem& item) { item.flags = 1; }),
       "entry 'a/data/0' has flags 0x0001, it is encrypted"},
      {"strongly encrypted", data([](ZipItem& item) { item.flags = 0x40; }),
       "entry 'a/data/0' has flags 0x0040"},
      {"a masked header", data([](ZipItem& item) { item.flags = 0x2000; }),
       "entry 'a/data/0' has flags 0x2000"},
      {"a name twice", added({"a/data/0", "other"}), "entry 'a/data/0' stands twice"},
      {"the pickle twice", added({"a/data.pkl", "\x80\x02}."}), "entry 'a/data.pkl' stands twice"},
      {"an absolute name", added({"/etc/passwd", "x"}), "entry '/etc/passwd' has no plain name"},
      {"a name outside", added({"a/../../x", "x"}), "entry 'a/../../x' has no plain name"},
      {"a name with a backslash", added({"a\\b", "x"}), "entry 'a\\b' has no plain name"},
      {"a name with a NUL", added({"a/\0b"s, "x"}), "entry 'a/\\x00b' has no plain name"},
      {"a name that is no UTF-8", added({"a/\xff", "x"}), "entry 'a/\\xff' has no plain name"},
      {"an empty name", added({"", "x"}), "entry '' has no plain name"},
      {"another name in its own header", data([](ZipItem& item) { item.header_name = "a/data/1"; }),
       differs},
      {"another size in its own header", data([](ZipItem& item) { item.header_size = 25; }),
       differs + ""},
      {"told larger than the file", data([](ZipItem& item) { item.size = 100'000; }),
       fmt::format("entry 'a/data/0' has 100000 bytes, {} follow", 24 + 30 + 9 + 2)},
      {"told larger than it is", data([](ZipItem& item) { item.size = 30; }),
       "entry 'a/version' overlaps the one before it"},
      {"told smaller than it is", data([](ZipItem& item) { item.size = 20; }),
       "4 bytes before entry 'a/version' belong to none"},
      {"hidden bytes between", data([](ZipItem& item) { item.gap = "hidden"; }),
       "6 bytes before entry 'a/data/0' belong to none"},
      {"hidden bytes in front", changed([](Items& items) { items[0].gap = "PK\x03\x04hidden"; }),
       "10 bytes before entry 'a/data.pkl' belong to none"},
      {"hidden bytes before the directory", changed([](Items& items) { items[2].behind = "xyz"; }),
       "3 bytes before the directory belong to no entry"},
      {"two entries in one place", changed([&](Items& items) { items[2].offset = second; }),
       "entry 'a/version' overlaps the one before it"},
      {"an offset beyond the file", changed([](Items& items) { items[2].offset = 1'000'000; }),
       fmt::format("{} bytes before entry 'a/version' belong to none",
                   1'000'000 - second - 30 - 8 - 24)},
      {"an entry in the directory",
       changed([](Items& items) { items[2].offset = zip_file(good()).find("PK\x01\x02"); }),
       fmt::format("{} bytes before entry 'a/version' belong to none", 30 + 9 + 2)},
      {"sizes behind that are not there", data([](ZipItem& item) { item.flags = 8; }),
       fmt::format("entry 'a/data/0': the sizes behind its data, at byte {}, are not what the "
                   "directory says",
                   second + 30 + 8 + 24)},
      {"sizes behind that lie", data([](ZipItem& item) {
         item.flags = 8;
         item.behind = zip_descriptor(sum(item.data), 25, false);
       }),
       fmt::format("entry 'a/data/0': the sizes behind its data, at byte {}, are not what the "
                   "directory says",
                   second + 30 + 8 + 24)},
      {"a large size without its number", data([](ZipItem& item) { item.size = 0xFFFFFFFF; }),
       "entry 'a/data/0' lacks its 64-bit sizes"},
      {"a wrong sum of the pickle", changed([](Items& items) { items[0].crc = 7; }),
       fmt::format("entry 'a/data.pkl' sums to {:08x}, its CRC says 00000007; the file is damaged",
                   sum(good()[0].data))},
      {"a wrong sum of a storage", data([](ZipItem& item) { item.crc = 7; }),
       fmt::format("entry 'a/data/0' sums to {:08x}, its CRC says 00000007; the file is damaged",
                   sum(std::string(24, 'f')))},
  };
}

std::vector<FileCase> bad_contents() {
  return {
      {"no pickle", changed([](Items& items) { items[0].name = "a/data.txt"; }),
       "the zip file has 0 pickles named data.pkl, wanted one; was it not written by torch.save?"},
      {"a pickle too deep", changed([](Items& items) { items[0].name = "a/b/data.pkl"; }),
       "the zip file has 0 pickles named data.pkl, wanted one; was it not written by torch.save?"
       ""},
      {"two pickles", added({"b/data.pkl", "\x80\x02}."}),
       "the zip file has 2 pickles named data.pkl, wanted one; was it not written by torch.save?"},
      {"names outside", added({"b/x", "x"}), "1 name outside 'a/': 'b/x'"},
      {"TorchScript", added({"a/constants.pkl", "x"}),
       "it holds a TorchScript program, wanted tensors; save its state_dict()"},
      {"code", added({"a/code/x.py", "x"}),
       "it holds a TorchScript program, wanted tensors; save its state_dict()"},
      {"big-endian", added({"a/byteorder", "big"}),
       "its byte order is not 'little'; save it on another machine"},
      {"a long byte order", added({"a/byteorder", std::string(1000, 'l')}),
       "its byte order is not 'little'; save it on another machine"},
  };
}

}  // namespace

std::vector<FileCase> malformed_zips() {
  std::vector<FileCase> all;
  for (const auto& part : {bad_ends(), bad_entries(), bad_contents()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

std::vector<FileCase> odd_torch_files() {
  const auto data = [](auto change) { return changed([&](Items& items) { change(items[1]); }); };
  return {
      {"plain", zip_file(good()), ""},
      {"a 64-bit end", zip_file(good(), {.large = true}), ""},
      {"a 64-bit end alone", zip_file(good(), {.large = true, .large_alone = true}), ""},
      {"entries in another order", changed([](Items& items) { std::swap(items[0], items[2]); }),
       ""},
      {"sizes behind", data([](ZipItem& item) {
         item.flags = 8;
         item.header_size = 0;
         item.behind = zip_descriptor(sum(item.data), 24, false);
       }),
       ""},
      {"large sizes behind", data([](ZipItem& item) {
         item.flags = 0x808;
         item.behind = zip_descriptor(sum(item.data), 24, true);
       }),
       ""},
      {"what nobody asks for", added({"a/.format_version", "1"}), ""},
      {"no tensor", torch_file("\x80\x02}."), ""},
      {"a versioned OrderedDict",
       torch_file("\x80\x02" + pickled_global("collections", "OrderedDict") + ")R}" +
                  pickled_text("_metadata") + "}sb."),
       ""},
      {"an empty tensor at the end",
       torch_file(pickled_dict(pickled_text("a") + pickled_tensor(6, {0}, {1}))), ""},
      {"a name with ..",
       torch_file(pickled_dict(pickled_text("../../a") + pickled_tensor(0, {2}, {1}))), ""},
  };
}

}  // namespace moue::test
