// Streams files to disk. A file is cut into chunks, each filled and written by whichever thread is
// free; hashing must follow the file's order, so a thread that finds a file's next chunk written
// hashes it and gives the buffer back. Chunks are begun in order, hence the buffers in use always
// include the next one to be hashed, and the work cannot stand still.
#include "convert/stream.h"

#include <sys/mman.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <list>
#include <mutex>
#include <optional>
#include <thread>

#include "core/files.h"
#include "core/sha256.h"
#include "core/stop.h"
#include "moue/error.h"

namespace moue {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kLargestChunk = uint64_t{4} << 20;
constexpr uint64_t kSmallestChunk = uint64_t{64} << 10;
constexpr int64_t kBuffersPerThread = 8;  // more would not be faster

// Aligned memory, cut into chunks; pages are real only once used.
class Buffers {
 public:
  explicit Buffers(const StreamBuffers& shape) : shape_(shape) {
    void* memory =
        ::mmap(nullptr, shape_.bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      fail("convert", "{} bytes of buffers cannot be had; lower --memory", shape_.bytes());
    }
    base_ = static_cast<std::byte*>(memory);
    for (int64_t i = 0; i < shape_.count; ++i)
      free_.push_back(base_ + static_cast<uint64_t>(i) * shape_.chunk);
  }
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers() { ::munmap(base_, shape_.bytes()); }

  bool has_free() const { return !free_.empty(); }
  std::byte* take() {
    std::byte* buffer = free_.back();
    free_.pop_back();
    return buffer;
  }
  void give_back(std::byte* buffer) { free_.push_back(buffer); }
  uint64_t chunk() const { return shape_.chunk; }

 private:
  StreamBuffers shape_;
  std::byte* base_ = nullptr;
  std::vector<std::byte*> free_;
};

// A file that is being written.
struct Flight {
  struct Chunk {
    std::byte* buffer;
    uint64_t bytes;
    bool is_written = false;
  };
  Flight(size_t file, const fs::path& path)
      : number(file), target(path, "convert", OutputFile::Existing::Refuse) {
    target.bypass_cache();
  }
  size_t number;  // of the file
  OutputFile target;
  uint64_t begun = 0;        // bytes of chunks that were begun
  std::deque<Chunk> chunks;  // begun, not yet hashed, in order
  bool is_hashing = false;   // by some thread
  Sha256 sha;
};

class Stream {
 public:
  Stream(Staging& staging, std::span<const StreamedFile> files, const StreamOptions& options)
      : staging_(staging),
        files_(files),
        options_(options),
        buffers_(buffers_for(options)),
        digests_(files.size()),
        most_flights_(std::max<size_t>(1, static_cast<size_t>(threads_for(options.threads)) / 4)) {}

  std::vector<FileDigest> run() {
    skip_completed();
    std::vector<std::thread> others;
    for (int64_t i = 1; i < threads_for(options_.threads); ++i)
      others.emplace_back([this] { work(); });
    work();
    for (std::thread& thread : others) thread.join();
    if (failure_) std::rethrow_exception(failure_);
    return std::move(digests_);
  }

 private:
  using Lock = std::unique_lock<std::mutex>;

  void work() {
    Lock lock(mutex_);
    try {
      while (!failure_ && (next_file_ < files_.size() || !flights_.empty())) {
        if (!hash_some(lock) && !write_some(lock)) changed_.wait(lock);
      }
    } catch (...) {
      if (!lock.owns_lock()) lock.lock();
      if (!failure_) failure_ = std::current_exception();
    }
    changed_.notify_all();
  }

  // Hashes the next chunk of a file, and ends the file behind its last.
  bool hash_some(Lock& lock) {
    const auto flight = std::ranges::find_if(flights_, [](const Flight& each) {
      return !each.is_hashing && !each.chunks.empty() && each.chunks.front().is_written;
    });
    if (flight == flights_.end()) return false;
    const Flight::Chunk chunk = flight->chunks.front();
    flight->is_hashing = true;
    lock.unlock();
    flight->sha.update({chunk.buffer, chunk.bytes});
    lock.lock();
    buffers_.give_back(chunk.buffer);
    flight->chunks.pop_front();
    const bool is_last = flight->chunks.empty() && flight->begun == files_[flight->number].bytes;
    if (is_last) {
      lock.unlock();
      flight->target.commit();
      const FileDigest digest{flight->begun, flight->sha.hex()};
      staging_.done(files_[flight->number].name, digest);
      lock.lock();
      digests_[flight->number] = digest;
      flights_.erase(flight);
    } else {
      flight->is_hashing = false;
    }
    changed_.notify_all();
    return true;
  }

  // Begins the next chunk of the file of which fewest are under way.
  bool write_some(Lock& lock) {
    if (!buffers_.has_free()) return false;
    Flight* flight = next_flight();
    if (flight == nullptr) return false;
    const StreamedFile& file = files_[flight->number];
    const uint64_t from = flight->begun;
    flight->chunks.push_back({buffers_.take(), std::min(buffers_.chunk(), file.bytes - from)});
    Flight::Chunk& chunk = flight->chunks.back();  // a deque's elements stay where they are
    flight->begun += chunk.bytes;
    const std::span<std::byte> bytes(chunk.buffer, chunk.bytes);
    lock.unlock();
    stop_if_asked("convert");
    file.fill(from, bytes);
    flight->target.write_at(from, bytes);
    if (options_.written) options_.written(bytes.size());
    lock.lock();
    chunk.is_written = true;
    changed_.notify_all();
    return true;
  }

  Flight* next_flight() {
    if (flights_.size() < most_flights_ && next_file_ < files_.size()) {
      flights_.emplace_back(next_file_, staging_.path() / files_[next_file_].name);
      ++next_file_;
      skip_completed();
    }
    Flight* best = nullptr;
    for (Flight& flight : flights_) {
      if (flight.begun == files_[flight.number].bytes) continue;
      if (best == nullptr || flight.chunks.size() < best->chunks.size()) best = &flight;
    }
    return best;
  }

  // Files that an earlier run of the same job has left whole.
  void skip_completed() {
    for (; next_file_ < files_.size(); ++next_file_) {
      const auto digest = staging_.has(files_[next_file_].name);
      if (!digest) return;
      digests_[next_file_] = *digest;
    }
  }

  Staging& staging_;
  const std::span<const StreamedFile> files_;
  const StreamOptions& options_;
  std::mutex mutex_;  // over all that follows; reading, writing and hashing happen outside it
  std::condition_variable changed_;
  Buffers buffers_;
  std::list<Flight> flights_;  // in the order of their files
  size_t next_file_ = 0;
  std::vector<FileDigest> digests_;
  const size_t most_flights_;
  std::exception_ptr failure_;
};

}  // namespace

int64_t threads_for(int64_t asked) {
  if (asked > 0) return asked;
  // Half of them wait for the disk at any time.
  return std::clamp<int64_t>(2 * std::thread::hardware_concurrency(), 2, 32);
}

StreamBuffers buffers_for(const StreamOptions& options) {
  const int64_t most = kBuffersPerThread * threads_for(options.threads);
  const int64_t least = 2 * threads_for(options.threads);
  const uint64_t needed = options.scratch + static_cast<uint64_t>(least) * kSmallestChunk;
  if (options.memory < needed) {
    fail("convert",
         "memory is {} bytes, wanted at least {} for {} threads; raise --memory or "
         "lower --threads",
         options.memory, needed, threads_for(options.threads));
  }
  const uint64_t room = options.memory - options.scratch;
  const uint64_t even = room / static_cast<uint64_t>(least) / kSmallestChunk * kSmallestChunk;
  const uint64_t chunk = std::clamp(even, kSmallestChunk, kLargestChunk);
  return {chunk, std::min<int64_t>(most, static_cast<int64_t>(room / chunk))};
}

std::vector<FileDigest> stream_files(Staging& staging, std::span<const StreamedFile> files,
                                     const StreamOptions& options) {
  std::vector<Reservation> reservations;
  for (const StreamedFile& file : files) {
    if (!staging.has(file.name)) reservations.push_back({file.name, file.bytes});
  }
  reserve_files(staging.path(), reservations);
  return Stream(staging, files, options).run();
}

}  // namespace moue
