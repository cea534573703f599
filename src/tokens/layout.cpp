// Recognises token files by header or name and checks every number in them.
#include "tokens/layout.h"

#include "core/files.h"
#include "core/tree.h"
#include "moue/error.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <vector>

namespace moue {

static_assert(std::endian::native == std::endian::little);
namespace fs = std::filesystem;

uint64_t width_of(Element element) {
  switch (element) {
    case Element::U8:
    case Element::I8:
      return 1;
    case Element::U16:
    case Element::I16:
      return 2;
    case Element::U32:
    case Element::I32:
      return 4;
    case Element::I64:
      return 8;
  }
  return 0;
}

namespace {

template <class T>
T loaded(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

template <class T>
T number_at(const InputFile& file, uint64_t offset) {
  std::byte bytes[sizeof(T)];
  file.read_at(offset, bytes);
  return loaded<T>(bytes);
}

std::optional<Element> element_of(std::string_view type) {
  if (type == "u16") return Element::U16;
  if (type == "u32") return Element::U32;
  return {};
}

std::string_view type_name(Element element) {
  constexpr std::string_view kNames[] = {"u8", "i8", "u16", "i16", "u32", "i32", "i64"};
  return kNames[static_cast<size_t>(element)];
}

// A header's element type against what the user asked for; a signed type of the same width will do.
void check_type(const InputFile& file, Element element, std::optional<Element> wanted) {
  if (!wanted || width_of(*wanted) == width_of(element)) return;
  fail("tokens", "{} holds {} by its header, token_type says {}; leave token_type out",
       file.path().string(), type_name(element), type_name(*wanted));
}

void check_not_empty(const fs::path& file, uint64_t count) {
  if (count == 0) fail("tokens", "{} holds no tokens", file.string());
}

TokenLayout raw_layout(const InputFile& file, Element element) {
  const uint64_t width = width_of(element);
  if (file.size() % width != 0) {
    fail("tokens",
         "{} is {} bytes, wanted a multiple of {} for {}; is it cut short, or of another type?",
         file.path().string(), file.size(), width, type_name(element));
  }
  check_not_empty(file.path(), file.size() / width);
  return {file.path(), element, 0, file.size() / width};
}

// llm.c: 256 int32, of which magic, version and count are used, then the tokens.
constexpr uint64_t kLlmcHeader = 1024;
constexpr int32_t kLlmcMagic16 = 20240520;
constexpr int32_t kLlmcMagic32 = 20240801;

bool is_llmc(const InputFile& file) {
  if (file.size() < 8) return false;
  const auto magic = number_at<int32_t>(file, 0);
  const auto version = number_at<int32_t>(file, 4);
  return (magic == kLlmcMagic16 && version == 1) || (magic == kLlmcMagic32 && version == 7);
}

TokenLayout llmc_layout(const InputFile& file, std::optional<Element> wanted) {
  const Element element = number_at<int32_t>(file, 0) == kLlmcMagic16 ? Element::U16 : Element::U32;
  check_type(file, element, wanted);
  if (file.size() < kLlmcHeader) {
    fail("tokens", "{} is {} bytes, an llm.c header takes {}; has it been cut short?",
         file.path().string(), file.size(), kLlmcHeader);
  }
  const int64_t count = number_at<int32_t>(file, 8);
  const uint64_t there = file.size() - kLlmcHeader;
  if (count < 0 || static_cast<uint64_t>(count) * width_of(element) != there) {
    fail("tokens", "{} announces {} tokens of {} bytes, {} bytes follow its header",
         file.path().string(), count, width_of(element), there);
  }
  check_not_empty(file.path(), static_cast<uint64_t>(count));
  return {file.path(), element, kLlmcHeader, static_cast<uint64_t>(count)};
}

// Megatron .idx: magic, version, element code, counts, then per sequence its length (int32) and its
// byte offset in the .bin (int64), then the sequence at which each document begins (int64).
constexpr std::string_view kMegatronMagic{"MMIDIDX\0\0", 9};
constexpr uint64_t kMegatronHeader = 34;

Element megatron_element(const InputFile& index) {
  const auto code = number_at<uint8_t>(index, 17);
  switch (code) {
    case 1:
      return Element::U8;
    case 2:
      return Element::I8;
    case 3:
      return Element::I16;
    case 4:
      return Element::I32;
    case 5:
      return Element::I64;
    case 8:
      return Element::U16;
  }
  fail("tokens", "{} has element code {}, wanted an integer type: 1 to 5 or 8",
       index.path().string(), code);
}

// Reads `count` numbers in pieces, so that memory never follows a number in the file.
template <class T, class Use>
void each_number(const InputFile& file, uint64_t offset, uint64_t count, Use use) {
  constexpr uint64_t kPiece = 8192;
  std::vector<std::byte> bytes(kPiece * sizeof(T));
  for (uint64_t first = 0; first < count; first += kPiece) {
    const uint64_t many = std::min(kPiece, count - first);
    file.read_at(offset + first * sizeof(T), std::span(bytes).first(many * sizeof(T)));
    for (uint64_t i = 0; i < many; ++i) use(first + i, loaded<T>(&bytes[i * sizeof(T)]));
  }
}

struct MegatronIndex {
  const InputFile& file;
  uint64_t sequences;
  uint64_t documents;
  uint64_t width;
  uint64_t lengths() const { return kMegatronHeader; }
  uint64_t offsets() const { return lengths() + sequences * 4; }
  uint64_t boundaries() const { return offsets() + sequences * 8; }
};

MegatronIndex megatron_header(const InputFile& index, uint64_t width) {
  const auto sequences = number_at<uint64_t>(index, 18);
  const auto documents = number_at<uint64_t>(index, 26);
  const uint64_t there = index.size() - kMegatronHeader;
  const bool fits = sequences <= there / 12 && documents <= (there - sequences * 12) / 8;
  // A multimodal index carries one more byte per sequence.
  const uint64_t rest = fits ? there - sequences * 12 - documents * 8 : 1;
  if (!fits || (rest != 0 && rest != sequences)) {
    fail("tokens",
         "{} announces {} sequences and {} document boundaries, {} bytes follow its header",
         index.path().string(), sequences, documents, there);
  }
  return {index, sequences, documents, width};
}

// Sequences must follow each other without holes, as every writer of the format leaves them: then
// the .bin is one stream. Lengths and offsets are walked side by side.
uint64_t megatron_tokens(const MegatronIndex& index) {
  const std::string name = index.file.path().string();
  uint64_t tokens = 0;
  std::vector<std::byte> offsets;
  constexpr uint64_t kPiece = 8192;
  each_number<int32_t>(
      index.file, index.lengths(), index.sequences, [&](uint64_t i, int32_t length) {
        if (i % kPiece == 0) {
          offsets.resize(std::min(kPiece, index.sequences - i) * 8);
          index.file.read_at(index.offsets() + i * 8, offsets);
        }
        if (length < 0) fail("tokens", "{} sequence {} has length {}", name, i, length);
        const auto offset = loaded<int64_t>(&offsets[i % kPiece * 8]);
        if (offset < 0 || static_cast<uint64_t>(offset) != tokens * index.width) {
          fail("tokens", "{} sequence {} begins at byte {}, wanted {}, where the one before ends",
               name, i, offset, tokens * index.width);
        }
        tokens += static_cast<uint64_t>(length);
      });
  return tokens;
}

void check_documents(const MegatronIndex& index) {
  int64_t last = 0;
  each_number<int64_t>(
      index.file, index.boundaries(), index.documents, [&](uint64_t i, int64_t at) {
        const bool good =
            i == 0 ? at == 0 : at >= last && static_cast<uint64_t>(at) <= index.sequences;
        if (!good) {
          fail("tokens", "{} document boundary {} is {}, wanted {}", index.file.path().string(), i,
               at, i == 0 ? "0" : fmt::format("{} to {}", last, index.sequences));
        }
        last = at;
      });
}

TokenLayout megatron_layout(const InputFile& index, const fs::path& data,
                            std::optional<Element> wanted) {
  if (index.size() < kMegatronHeader) {
    fail("tokens", "{} is {} bytes, a Megatron index has at least {}", index.path().string(),
         index.size(), kMegatronHeader);
  }
  if (const auto version = number_at<uint64_t>(index, 9); version != 1) {
    fail("tokens", "{} is a Megatron index of version {}, wanted 1", index.path().string(),
         version);
  }
  const Element element = megatron_element(index);
  check_type(index, element, wanted);
  const MegatronIndex header = megatron_header(index, width_of(element));
  const uint64_t tokens = megatron_tokens(header);
  check_documents(header);
  const InputFile bytes(data, "tokens");
  if (bytes.size() != tokens * header.width) {
    fail("tokens", "{} is {} bytes, {} announces {} tokens of {} bytes", data.string(),
         bytes.size(), index.path().string(), tokens, header.width);
  }
  check_not_empty(data, tokens);
  return {data, element, 0, tokens, header.documents > 0 ? index.path() : fs::path()};
}

bool is_megatron(const fs::path& index) {
  if (!is_file(index)) return false;
  const InputFile file(index, "tokens");
  std::byte magic[9];
  if (file.size() < sizeof(magic)) return false;
  file.read_at(0, magic);
  return std::memcmp(magic, kMegatronMagic.data(), sizeof(magic)) == 0;
}

}  // namespace

int64_t decoded(Element element, const std::byte* bytes) {
  switch (element) {
    case Element::U8:
      return loaded<uint8_t>(bytes);
    case Element::I8:
      return loaded<int8_t>(bytes);
    case Element::U16:
      return loaded<uint16_t>(bytes);
    case Element::I16:
      return loaded<int16_t>(bytes);
    case Element::U32:
      return loaded<uint32_t>(bytes);
    case Element::I32:
      return loaded<int32_t>(bytes);
    case Element::I64:
      return loaded<int64_t>(bytes);
  }
  return -1;
}

TokenLayout token_layout(const fs::path& file, std::string_view token_type) {
  const std::optional<Element> wanted = element_of(token_type);
  if (!wanted && !token_type.empty()) {
    fail("tokens", "token_type is '{}', wanted u16 or u32", token_type);
  }
  const fs::path extension = file.extension();
  const bool stem = extension != ".idx" && extension != ".bin" && !stands(file);
  const fs::path index =
      stem ? fs::path(file.string() + ".idx") : fs::path(file).replace_extension(".idx");
  if ((stem || extension == ".idx" || extension == ".bin") && is_megatron(index)) {
    return megatron_layout(InputFile(index, "tokens"), fs::path(index).replace_extension(".bin"),
                           wanted);
  }
  const InputFile opened(file, "tokens");
  if (extension == ".idx") {
    fail("tokens", "{} does not begin as a Megatron index (MMIDIDX, version 1)", file.string());
  }
  const std::optional<Element> named = element_of(extension.string().substr(!extension.empty()));
  if (!named && is_llmc(opened)) return llmc_layout(opened, wanted);
  if (wanted || named) return raw_layout(opened, wanted ? *wanted : *named);
  fail("tokens",
       "{} is neither llm.c nor Megatron, and its name does not end in .u16 or .u32; say what it "
       "is with "
       "token_type = \"u16\" or \"u32\"",
       file.string());
}

std::vector<uint64_t> document_bounds(const TokenLayout& layout) {
  if (layout.index.empty()) return {};
  const InputFile file(layout.index, "tokens");
  const MegatronIndex index = megatron_header(file, width_of(layout.element));
  std::vector<uint64_t> firsts;  // sequence at which each document begins
  each_number<int64_t>(file, index.boundaries(), index.documents,
                       [&](uint64_t, int64_t at) { firsts.push_back(static_cast<uint64_t>(at)); });
  std::vector<uint64_t> bounds;
  uint64_t tokens = 0;
  size_t next = 0;
  each_number<int32_t>(file, index.lengths(), index.sequences, [&](uint64_t i, int32_t length) {
    for (; next < firsts.size() && firsts[next] <= i; ++next) bounds.push_back(tokens);
    tokens += static_cast<uint64_t>(length);
  });
  if (tokens != layout.count)
    fail("tokens", "{} announces {} tokens now, {} when it was opened; does somebody write it?",
         file.path().string(), tokens, layout.count);
  bounds.push_back(tokens);
  return bounds;
}

}  // namespace moue
