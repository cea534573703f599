// Staging: a directory that appears under its name complete, or not at all, and can be gone on with
// after an interruption.
#pragma once

#include "core/files.h"
#include "core/staging_journal.h"
#include "moue/digest.h"

#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moue {

/// A directory under construction: lies beside its target as ".NAME.moue-partial" until it is
/// complete. What a run before left there is removed, and said so in the log; where that run had
/// the same `job`, what it completed is verified and kept.
class Staging {
 public:
  enum class Existing : uint8_t { Refuse, Replace };

  /// Throws Error where the target exists (Refuse), in any form, or another process is making it.
  /// `job` tells runs apart that would write other bytes; "" = nothing is ever kept.
  explicit Staging(std::filesystem::path target, std::string job = "",
                   Existing existing = Existing::Refuse);
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  /// Not committed means removed, with the parents it made, unless finish() kept it.
  ~Staging();
  const std::filesystem::path& path() const { return partial_; }
  const std::filesystem::path& target() const { return target_; }

  /// Whether an earlier run of this job completed the file; it need not be written again.
  std::optional<FileDigest> has(const std::string& name) const;
  uint64_t kept_bytes() const;  ///< of all such files
  /// Notes a file of the directory as complete. It must have been synced (OutputFile, the
  /// safetensors writers). Safe from several threads; for files too large to be written twice.
  void done(const std::string& name, const FileDigest& digest);

  /// Runs `write`, then commits. Where the disk refuses, a signal stops it or a fault is ours, what
  /// is done() stays for the next run of the job, and messages say so; any other Error removes it.
  void finish(const std::function<void()>& write);
  /// Syncs every file and directory, renames, syncs the parent. Refuses a target that appeared
  /// meanwhile, unless it is to be replaced.
  void commit();

 private:
  void take();
  void make();
  bool go_on();
  void start_journal();
  void note(const std::string& line);
  void keep();
  std::string advice() const;
  std::filesystem::path replace();

  std::filesystem::path target_;
  std::filesystem::path partial_;
  std::string job_;
  Existing existing_;
  std::vector<std::filesystem::path> made_parents_;  // outermost first
  Descriptor lock_;
  Descriptor journal_;
  mutable std::mutex mutex_;
  StagedFiles complete_;
  StagedFiles kept_;  // of those, what an earlier run had completed
  bool keep_ = false;
};

}  // namespace moue
