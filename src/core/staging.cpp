// Staging: made beside its target, resumed where an earlier run of the same job left it, renamed.
#include "core/staging.h"

#include "core/disk.h"
#include "core/text.h"
#include "core/tree.h"
#include "moue/error.h"
#include "moue/log.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

namespace moue {
namespace fs = std::filesystem;
namespace {

constexpr int kDirectory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;

fs::path without_slash(const fs::path& path) {
  const fs::path plain = path.lexically_normal();
  return plain.has_filename() ? plain : plain.parent_path();
}

void remove_parents(const std::vector<fs::path>& made) {
  for (auto it = made.rbegin(); it != made.rend(); ++it) disk::remove_directory(*it);
}

uint64_t bytes_of(const StagedFiles& files) {
  uint64_t bytes = 0;
  for (const auto& [name, file] : files) bytes += file.digest.bytes;
  return bytes;
}

// 0 or errno. What is not noted as complete goes: halves of files, blocks reserved for others.
int remove_all_but(const fs::path& directory, const StagedFiles& files) {
  for (const std::string& name : names_in(directory, "files")) {
    if (name == kStagingJournal || files.contains(name)) continue;
    if (const int error = remove_tree(directory / name); error != 0) return error;
  }
  return 0;
}

// Another process that begins here meanwhile removes it itself.
void remove_old(const fs::path& old) {
  try {
    const Descriptor lock(disk::open(old, kDirectory));
    if (lock.get() >= 0 && !lock_partial(lock, old)) return;
    if (const int error = remove_tree(old); error != 0) {
      log_line("files", "{}, the old one, could not be removed: {}", old.native(),
               error_text(error));
    }
  } catch (const Error& error) {
    // The new one stands: no reason to fail.
    log_line("files", "{}, the old one, stays: {}", old.native(), error.what());
  }
}

}  // namespace

Staging::Staging(fs::path target, std::string job, Existing existing)
    : target_(without_slash(target)),
      partial_(partial_path(target_)),
      job_(std::move(job)),
      existing_(existing) {
  if (!target_.has_filename() || target_.filename() == "." || target_.filename() == "..") {
    fail("files", "{} cannot be made as a new directory; give it a name",
         in_quotes(target.native()));
  }
  if (existing_ == Existing::Refuse && stands(target_)) {
    fail("files", "{} exists, wanted a new directory; remove it or choose another name",
         target_.native());
  }
  made_parents_ = make_directories(target_.parent_path(), "files");
  try {
    take();
  } catch (...) {
    remove_parents(made_parents_);
    throw;
  }
}

void Staging::take() {
  lock_ = Descriptor(disk::open(partial_, kDirectory));
  if (lock_.get() < 0) {
    if (stands(partial_)) {
      fail("files", "{} is in the way of {}; remove it", partial_.native(), target_.native());
    }
    return make();
  }
  if (!lock_partial(lock_, partial_)) {
    fail("files", "{} is being made by another process", target_.native());
  }
  if (!job_.empty() && go_on()) return;
  const bool of_another = is_file(partial_ / kStagingJournal);
  if (const int error = remove_tree(partial_); error != 0) {
    fail_disk("files", "{}, left by a run that was interrupted, cannot be removed: {}",
              partial_.native(), error_text(error));
  }
  log_line("files", "removed {}, left by a run that was interrupted{}", partial_.native(),
           of_another ? ": its source, plan or settings were others" : "");
  make();
}

void Staging::make() {
  if (disk::make_directory(partial_) != 0) {
    fail_disk("files", "{} cannot be created: {}", target_.native(), error_text(errno));
  }
  lock_ = Descriptor(disk::open(partial_, kDirectory));
  if (lock_.get() < 0) {
    const int error = errno;
    disk::remove_directory(partial_);
    fail_disk("files", "{} cannot be opened: {}", partial_.native(), error_text(error));
  }
  if (!lock_partial(lock_, partial_)) {
    fail("files", "{} is being made by another process", target_.native());
  }
  if (job_.empty()) return;
  try {
    start_journal();
  } catch (...) {
    remove_tree(partial_);
    throw;
  }
}

// Takes over what an earlier run of this job completed; false where this is another job's.
bool Staging::go_on() {
  std::optional<StagedFiles> noted = read_journal(partial_, job_);
  if (!noted) return false;
  for (auto& [name, file] : *noted) {
    if (is_as_noted(partial_ / name, file)) {
      kept_.emplace(name, file);
    } else {
      log_line("files", "{} is not as it was left: it is written again", in_quotes(name));
    }
  }
  if (const int error = remove_all_but(partial_, kept_); error != 0) {
    fail_disk("files", "{} holds halves of files that cannot be removed: {}", partial_.native(),
              error_text(error));
  }
  complete_ = kept_;
  start_journal();
  log_line("files", "going on in {}, left by a run that was interrupted: {}, {} complete",
           partial_.native(), counted(kept_.size(), "file"), mib_text(bytes_of(kept_)));
  return true;
}

void Staging::start_journal() {
  std::string text = journal_head(job_);
  for (const auto& [name, file] : complete_) text += journal_line(name, file);
  write_file_whole(partial_ / kStagingJournal, text);
  journal_ = Descriptor(disk::open(partial_ / kStagingJournal, O_WRONLY | O_APPEND | O_NOFOLLOW));
  if (journal_.get() < 0) {
    fail_disk("files", "{} cannot be opened: {}", (partial_ / kStagingJournal).native(),
              error_text(errno));
  }
}

std::optional<FileDigest> Staging::has(const std::string& name) const {
  const auto found = kept_.find(name);
  return found == kept_.end() ? std::nullopt : std::optional(found->second.digest);
}

uint64_t Staging::kept_bytes() const { return bytes_of(kept_); }

void Staging::done(const std::string& name, const FileDigest& digest) {
  if (job_.empty()) return;
  const StagedFile file = staged_file(partial_ / name, digest);
  const std::lock_guard lock(mutex_);
  note(journal_line(name, file));
  complete_.insert_or_assign(name, file);
}

void Staging::note(const std::string& line) {
  append(journal_, line, partial_ / kStagingJournal, "files");
  if (disk::sync(journal_.get()) != 0) {
    fail_disk("files", "{} could not be brought to disk: {}", (partial_ / kStagingJournal).native(),
              error_text(errno));
  }
}

void Staging::finish(const std::function<void()>& write) {
  try {
    write();
    commit();
  } catch (const Interrupted& stop) {
    keep();
    throw Interrupted(stop.what() + advice());
  } catch (const DiskError& error) {
    keep();
    throw DiskError(error.what() + advice());
  } catch (const Error&) {
    throw;
  } catch (...) {  // no memory, or a fault of ours: not one of what was written
    keep();
    throw;
  }
}

// Leaves what is complete for the next run, and nothing else.
void Staging::keep() {
  if (complete_.empty() || lock_.get() < 0) return;
  keep_ = true;
  try {
    remove_all_but(partial_, complete_);
    start_journal();  // the last line may be torn
  } catch (const Error&) {
    // The disk fails here too; the next run verifies what it finds.
  }
}

std::string Staging::advice() const {
  if (lock_.get() < 0) {
    return fmt::format("; {} is complete, but a power cut may still undo it", target_.native());
  }
  if (!keep_) return "; nothing of it was complete, the same command starts anew";
  return fmt::format("; {}, {}, complete in {}: run the same command again to go on",
                     counted(complete_.size(), "file"), mib_text(bytes_of(complete_)),
                     partial_.native());
}

Staging::~Staging() {
  if (lock_.get() < 0 || keep_) return;
  journal_.reset();
  if (const int error = remove_tree(partial_); error != 0) {
    log_line("files", "{} could not be removed: {}", partial_.native(), error_text(error));
  }
  remove_parents(made_parents_);
}

void Staging::commit() {
  sync_tree(partial_, "files");
  journal_.reset();
  if (!job_.empty()) {
    if (disk::unlink(partial_ / kStagingJournal) != 0) {
      fail_disk("files", "{} cannot be removed: {}", (partial_ / kStagingJournal).native(),
                error_text(errno));
    }
    sync_path(partial_, "files");
  }
  fs::path old;
  if (existing_ == Existing::Replace && stands(target_)) {
    old = replace();
  } else {
    rename_new(partial_, target_, "files");
  }
  lock_.reset();
  sync_path(parent_of(partial_), "files");
  for (const fs::path& parent : made_parents_) sync_path(parent_of(parent), "files");
  if (!old.empty()) remove_old(old);
}

// Returns where the old directory now is. Where the file system cannot exchange two names, nothing
// stands under the target's for a moment.
fs::path Staging::replace() {
  if (disk::exchange(partial_, target_) == 0) return partial_;
  if (!is_unable(errno)) {
    fail_disk("files", "{} cannot be put in place: {}", target_.native(), error_text(errno));
  }
  const fs::path old = parent_of(target_) / ("." + target_.filename().native() + ".moue-old");
  remove_tree(old);
  rename_new(target_, old, "files");
  try {
    rename_new(partial_, target_, "files");
  } catch (const Error&) {
    disk::rename(old, target_);
    throw;
  }
  return old;
}

}  // namespace moue
