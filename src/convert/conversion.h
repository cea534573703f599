// Conversion: what is asked of a source, checked; makes the job of each layout.
#pragma once

#include <optional>

#include "convert/layout.h"
#include "moue/convert.h"

namespace moue {

class Conversion {
 public:
  /// `plan` and `statistics` may be null; both are borrowed. Throws Error where they do not belong
  /// to the source or the options contradict each other.
  Conversion(const Checkpoint& source, const Plan* plan, const Statistics* statistics,
             const ConvertOptions& options);
  Conversion(const Conversion&) = delete;
  Conversion& operator=(const Conversion&) = delete;

  Layout layout() const { return layout_; }  ///< that is asked for
  const Checkpoint& source() const { return source_; }
  /// Of the result, and of the source where that is a MoUE; null for an ordinary one.
  const Pool* pool() const { return pool_ ? &*pool_ : nullptr; }
  std::optional<Dtype> dtype() const { return dtype_; }

  /// Borrows this conversion. Throws Error saying why the source cannot be had in this layout.
  Job job(Layout layout) const;

 private:
  struct Range {
    int64_t first = 0, last = 0;
  };
  void read_options();
  void refuse_plan() const;
  void refuse_layout(Layout layout) const;
  std::shared_ptr<Content> content(Layout layout) const;
  void add_source(Content& content, Layout layout) const;
  Config config(Layout layout) const;
  void add_card(Job& job) const;
  std::string tied_with(uint32_t tensor) const;

  const Checkpoint& source_;
  const Plan* plan_;
  const Statistics* statistics_;
  const ConvertOptions& options_;
  const bool is_moue_;
  const Family& family_;
  const ModelSpec spec_;
  const Claims claims_;
  std::optional<Pool> pool_;
  Layout layout_ = Layout::Linked;
  std::optional<Dtype> dtype_;
  std::optional<Range> cut_;
};

}  // namespace moue
