// DocumentRows: rows that each hold the tokens of one document alone.
#pragma once

#include <cstdint>
#include <vector>

namespace moue {

/// Rows of `length` inputs begin at the documents' beginnings and every `length` tokens behind
/// them. The last row of a document has fewer targets than inputs: what its positions behind them
/// hold is of no account.
class DocumentRows {
 public:
  /// `bounds`: the first token of each document, ascending, and the end of the last.
  DocumentRows(const std::vector<uint64_t>& bounds, int64_t length);

  struct Row {
    uint64_t position = 0;  ///< of its first input in the file
    int64_t targets = 0;    ///< 1 to length
  };
  Row row(uint64_t number) const;
  uint64_t size() const { return ends_.empty() ? 0 : ends_.back(); }  ///< rows
  uint64_t documents() const { return ends_.size(); }                 ///< with a target at all
  uint64_t targets() const { return targets_; }                       ///< of all rows

 private:
  int64_t length_;
  uint64_t targets_ = 0;
  // Of each document with two tokens or more: where it begins, its targets, and how many rows there
  // are up to its end.
  std::vector<uint64_t> begins_, counts_, ends_;
};

}  // namespace moue
