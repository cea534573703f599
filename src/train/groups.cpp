// Tensors that train differently.
#include "train/groups.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "core/text.h"
#include "moue/error.h"

namespace moue {
namespace {

TrainGroup group_of(const TrainOptions& options, std::string_view tensor) {
  TrainGroup group;
  for (const TrainGroup& each : options.groups) {
    if (matches(each.pattern, tensor)) group = each;
  }
  for (const std::string& pattern : options.freeze) group.frozen |= matches(pattern, tensor);
  return group;
}

// A control may share its recipe with the MoUE.
bool may_be_idle(std::string_view pattern, const TrainOptions& options) {
  return options.control && pattern.starts_with("moue");
}

void refuse_idle_patterns(const std::vector<Parameter>& parameters, const TrainOptions& options) {
  std::vector<std::string> patterns = options.freeze, idle;
  for (const TrainGroup& group : options.groups) patterns.push_back(group.pattern);
  const auto is_used = [&](const std::string& pattern) {
    return std::any_of(parameters.begin(), parameters.end(), [&](const Parameter& parameter) {
      return std::any_of(parameter.disk.begin(), parameter.disk.end(),
                         [&](const DiskTensor& disk) { return matches(pattern, disk.name); });
    });
  };
  for (const std::string& pattern : patterns) {
    if (!is_used(pattern) && !may_be_idle(pattern, options)) idle.push_back(in_quotes(pattern));
  }
  if (idle.empty()) return;
  fail("train", "no tensor matches {}; tensors are named like {} and {}", fmt::join(idle, ", "),
       parameters.front().disk.front().name, parameters.back().disk.front().name);
}

bool alike(const GroupPiece& a, const GroupPiece& b) {
  return a.lr_multiplier == b.lr_multiplier && a.weight_decay == b.weight_decay &&
         a.range.end == b.range.begin;
}

ParameterGroup group_of(const Parameter& parameter, const TrainOptions& options,
                        std::vector<std::string>& faults) {
  ParameterGroup result;
  std::set<int64_t> starts;
  for (const DiskTensor& disk : parameter.disk) {
    const TrainGroup group = group_of(options, disk.name);
    const int64_t end = disk.offset + disk.slice.rows * disk.slice.columns;
    if (group.frozen || end == disk.offset) continue;
    const GroupPiece piece{{disk.offset, end}, group.lr_multiplier, group.weight_decay};
    starts.insert(group.start_step);
    if (!result.pieces.empty() && alike(result.pieces.back(), piece))
      result.pieces.back().range.end = end;
    else
      result.pieces.push_back(piece);
  }
  if (starts.size() > 1)
    faults.push_back(
        fmt::format("{} would start at steps {}", parameter.name, fmt::join(starts, " and ")));
  if (!starts.empty()) result.start_step = *starts.begin();
  return result;
}

}  // namespace

bool matches(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = std::string_view::npos, mark = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      mark = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {  // the last star takes one letter more
      p = star + 1;
      n = ++mark;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

bool is_frozen(const TrainOptions& options, std::string_view tensor) {
  return group_of(options, tensor).frozen;
}

std::vector<ParameterGroup> groups_of(const std::vector<Parameter>& parameters,
                                      const TrainOptions& options) {
  refuse_idle_patterns(parameters, options);
  std::vector<std::string> faults;
  std::vector<ParameterGroup> groups;
  for (const Parameter& parameter : parameters)
    groups.push_back(group_of(parameter, options, faults));
  if (!faults.empty())
    fail("train", "{}; what is one tensor in memory has one start_step", fmt::join(faults, "; "));
  return groups;
}

std::string groups_text(const TrainOptions& options) {
  std::vector<std::string> rows;
  for (const TrainGroup& group : options.groups) {
    rows.push_back(fmt::format("{}: lr * {}, decay {}, {}, from step {}", group.pattern,
                               group.lr_multiplier, group.weight_decay,
                               group.frozen ? "frozen" : "moving", group.start_step));
  }
  for (const std::string& pattern : options.freeze) rows.push_back(pattern + ": frozen");
  return rows.empty() ? "none" : fmt::format("{}", fmt::join(rows, "; "));
}

}  // namespace moue
