// Fuzzes token files: the first byte says which form, the second where a second file begins.
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <vector>

#include "fuzz/fuzz.h"
#include "tokens/tokens.h"

namespace {

namespace fs = std::filesystem;

// A folder in memory, where there is one; gone with the process.
const fs::path& folder() {
  struct Folder {
    Folder() {
      std::error_code none;
      const fs::path root =
          fs::is_directory("/dev/shm", none) ? "/dev/shm" : fs::temp_directory_path();
      path = root / ("moue-fuzz-" + std::to_string(::getpid()));
      fs::create_directory(path);
    }
    ~Folder() { fs::remove_all(path); }
    fs::path path;
  };
  static const Folder kFolder;
  return kFolder.path;
}

void write(const char* name, std::string_view bytes) {
  std::ofstream(folder() / name, std::ios::binary | std::ios::trunc) << bytes;
}

void read(const fs::path& file, std::string_view type) {
  using namespace moue;
  TokenFile tokens(file, type);
  std::vector<int64_t> some(std::min<uint64_t>(tokens.size(), 100));
  std::vector<uint8_t> mask(some.size());
  fuzz::attempt([&] { tokens.check_vocabulary(70000); });
  fuzz::attempt([&] { tokens.read(tokens.size() - some.size(), std::span<int64_t>(some)); });
  fuzz::attempt([&] { tokens.read_mask(0, std::span<uint8_t>(mask)); });
  fuzz::require(tokens.num_windows(7) >= 0, "windows are counted");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moue;
  if (size < 2) return 0;
  const std::string_view rest = fuzz::text_of(data + 2, size - 2);
  const size_t cut = rest.size() * data[1] / 256;
  const std::string_view first = rest.substr(0, cut), second = rest.substr(cut);
  return fuzz::attempt([&] {
    switch (data[0] % 4) {
      case 0:
        write("a.bin", rest);
        return read(folder() / "a.bin", "");
      case 1:
        write("b.u32", rest);
        return read(folder() / "b.u32", data[0] % 8 < 4 ? "u32" : "");
      case 2:
        write("c.idx", first);
        write("c.bin", second);
        return read(folder() / "c", "");
      default:
        write("d.u16", first);
        write("d.u16.mask", second);
        return read(folder() / "d.u16", "");
    }
  });
}
