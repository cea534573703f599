// The catalogue of safetensors files that must be refused, each with its message, and of odd ones
// that must load.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moue::test {

struct FileCase {
  std::string name;
  std::string bytes;
  std::string message;  ///< what follows "[safetensors] FILE: "; empty where the file loads
};

/// Small files, each breaking one rule; no two share a message.
std::vector<FileCase> malformed_files();

/// Odd files that are legal.
std::vector<FileCase> odd_files();

/// Length, header and data of a file.
std::string raw_file(std::string_view header, std::string_view data = {});
std::string raw_length(uint64_t length);

/// `"NAME":{"dtype":...}`, for a header made by hand.
std::string raw_entry(std::string_view name, std::string_view dtype, std::string_view shape,
                      std::string_view offsets);

}  // namespace moue::test
