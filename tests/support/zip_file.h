// A zip file made by hand, every field of which may lie.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace moue::test {

struct ZipItem {
  std::string name, data;
  std::optional<uint32_t> crc = {};          ///< else the data's
  std::optional<uint64_t> size = {};         ///< else the data's; both sizes in both places
  std::optional<uint64_t> header_size = {};  ///< in the item's own header alone
  std::string header_name = {};              ///< in its own header; "" = name
  uint16_t method = 0, flags = 0;
  std::string gap = {};                 ///< bytes before its own header
  std::optional<uint64_t> offset = {};  ///< of its own header, as the directory tells it
  std::string behind = {};              ///< bytes after its data, a descriptor for example
  uint64_t hole = 0;                    ///< so many zeros more as data, written by write_zip alone
};

struct ZipEnd {
  bool large = false;                  ///< with the 64-bit end
  bool large_alone = false;            ///< all ones in the other
  std::optional<uint64_t> count = {};  ///< entries as told
  std::optional<uint64_t> bytes = {};  ///< of the directory as told
  std::string comment = {};
};

std::string zip_file(const std::vector<ZipItem>& items, const ZipEnd& end = {});

/// The same as a file, holes without blocks.
void write_zip(const std::filesystem::path& file, const std::vector<ZipItem>& items);

/// The sizes behind an item's data, of flag 8.
std::string zip_descriptor(uint32_t crc, uint64_t size, bool large);

}  // namespace moue::test
