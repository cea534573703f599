// SHA-256 through OpenSSL's EVP interface, which picks the machine's SHA instructions.
#include "core/sha256.h"

#include "core/files.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <new>
#include <stdexcept>
#include <vector>

namespace moue {

void Sha256::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  if (!context_) throw std::bad_alloc();
  if (EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) {
    throw std::runtime_error("OpenSSL offers no SHA-256");
  }
}

void Sha256::update(std::span<const std::byte> bytes) {
  if (EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) != 1) {
    throw std::runtime_error("OpenSSL: EVP_DigestUpdate failed");
  }
}

std::string Sha256::hex() {
  std::array<unsigned char, 32> digest{};
  if (EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr) != 1) {
    throw std::runtime_error("OpenSSL: EVP_DigestFinal failed");
  }
  return fmt::format("{:02x}", fmt::join(digest, ""));
}

std::string sha256_of(std::span<const std::byte> bytes) {
  Sha256 sha;
  sha.update(bytes);
  return sha.hex();
}

std::string sha256_of_file(const std::filesystem::path& file) {
  const InputFile input(file, "files");
  std::vector<std::byte> buffer(std::min<uint64_t>(input.size(), uint64_t{1} << 20));
  Sha256 sha;
  for (uint64_t at = 0; at < input.size(); at += buffer.size()) {
    const auto part = std::span(buffer).first(std::min<uint64_t>(buffer.size(), input.size() - at));
    input.read_at(at, part);
    sha.update(part);
  }
  return sha.hex();
}

}  // namespace moue
