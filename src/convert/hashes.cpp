// SHA-256 of whole files: a thread takes the next file when it is done with one.
#include "convert/hashes.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <thread>

#include "convert/stream.h"
#include "core/files.h"
#include "core/sha256.h"
#include "core/stop.h"
#include "moue/log.h"

namespace moue {
namespace {

constexpr uint64_t kBlock = uint64_t{1} << 20;

class Hashes {
 public:
  explicit Hashes(const std::vector<std::filesystem::path>& files) : result_(files.size()) {
    for (const auto& file : files) {
      files_.emplace_back(file, "convert");
      total_ += files_.back().size();
    }
  }

  void work() noexcept {
    try {
      for (size_t number; take(number);) result_[number] = hash(files_[number]);
    } catch (...) {
      const std::scoped_lock lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      next_ = files_.size();
    }
  }

  std::vector<std::string> result() {
    if (failure_) std::rethrow_exception(failure_);
    return std::move(result_);
  }

 private:
  bool take(size_t& number) {
    const std::scoped_lock lock(mutex_);
    number = next_;
    if (next_ < files_.size()) ++next_;
    return number < files_.size();
  }

  std::string hash(const InputFile& file) {
    std::vector<std::byte> block(std::min(kBlock, file.size()));
    Sha256 sha;
    for (uint64_t at = 0; at < file.size(); at += block.size()) {
      stop_if_asked("convert");
      const auto part = std::span(block).first(std::min<uint64_t>(block.size(), file.size() - at));
      file.read_at(at, part);
      sha.update(part);
      const std::scoped_lock lock(mutex_);
      done_ += part.size();
      log_progress(
          {"convert", static_cast<double>(done_), static_cast<double>(total_), "B", "hash"});
    }
    return sha.hex();
  }

  std::vector<InputFile> files_;
  std::vector<std::string> result_;
  std::mutex mutex_;
  size_t next_ = 0;
  uint64_t done_ = 0, total_ = 0;
  std::exception_ptr failure_;
};

}  // namespace

std::vector<std::string> hashes_of(const std::vector<std::filesystem::path>& files,
                                   int64_t threads) {
  Hashes hashes(files);
  const auto most = std::min<int64_t>(threads_for(threads), static_cast<int64_t>(files.size()));
  std::vector<std::thread> others;
  for (int64_t i = 1; i < most; ++i) others.emplace_back([&] { hashes.work(); });
  hashes.work();
  for (std::thread& thread : others) thread.join();
  return hashes.result();
}

}  // namespace moue
