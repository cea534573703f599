// The version of the tool: CHANGELOG.md, CMakeLists.txt, the manifest and `moue --version` say the
// same.
#pragma once

namespace moue {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace moue
