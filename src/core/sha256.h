// SHA-256, incrementally or of a whole file.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

struct evp_md_ctx_st;  // OpenSSL's EVP_MD_CTX

namespace moue {

class Sha256 {
 public:
  Sha256();
  void update(std::span<const std::byte> bytes);
  /// 64 lower-case hexadecimal digits of everything so far; ends the computation.
  std::string hex();

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

std::string sha256_of(std::span<const std::byte> bytes);

/// Throws Error naming the file where it cannot be read or shrinks meanwhile.
std::string sha256_of_file(const std::filesystem::path& file);

}  // namespace moue
