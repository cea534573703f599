// Where in which file the tokens of a raw, llm.c or Megatron token file lie, checked against the
// bytes present.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

namespace moue {

enum class Element : uint8_t { U8, I8, U16, I16, U32, I32, I64 };
uint64_t width_of(Element element);
int64_t decoded(Element element, const std::byte* bytes);  ///< little-endian

struct TokenLayout {
  std::filesystem::path data;  ///< the file with the tokens
  Element element = Element::U16;
  uint64_t offset = 0;  ///< of the first token
  uint64_t count = 0;
  std::filesystem::path index = {};  ///< of Megatron files; "" = the format knows no documents
};

TokenLayout token_layout(const std::filesystem::path& file, std::string_view token_type);

/// The first token of each document and, behind them, the number of tokens; empty where the format
/// knows no documents.
std::vector<uint64_t> document_bounds(const TokenLayout& layout);

}  // namespace moue
