// What a conversion has done, or would do.
#include "convert/report.h"

#include <algorithm>
#include <map>

#include "core/text.h"
#include "moue/error.h"

namespace moue {

namespace {

// What a disk of these days takes in a second, read or written: a dry run may not try ours.
constexpr double kAssumedRate = 500e6;

Table files_table(const Result& result) {
  Table table{"files", "Files", {"file", "from", "how", "bytes"}, {}};
  for (const ResultFile& file : result.files) {
    table.rows.push_back({file.name, file.from, file.how, static_cast<int64_t>(file.bytes)});
  }
  return table;
}

// "19 hard link", "3 written": of weights only, and where any were linked of those.
std::string shards_text(const Result& result) {
  const bool links = std::ranges::any_of(
      result.files, [](const ResultFile& file) { return file.weights && !file.from.empty(); });
  std::map<std::string, int64_t> counts;
  for (const ResultFile& file : result.files)
    counts[file.how] += file.weights && file.from.empty() != links;
  std::vector<std::string> words;
  for (const auto& [how, count] : counts) {
    if (count > 0) words.push_back(fmt::format("{} {}", count, how));
  }
  return join(words);
}

bool has_shards(const Result& result, LinkKind how) {
  return std::ranges::any_of(result.files, [&](const ResultFile& file) {
    return file.weights && file.how == to_string(how);
  });
}

void add_pool_facts(const Conversion& conversion, const Job& job, Report& report) {
  const Pool* pool = conversion.pool();
  if (pool == nullptr) return;
  const bool is_left = job.layout == Layout::Export;
  report.facts.push_back({"moe_layers", pool->num_moe_layers(), ""});
  report.facts.push_back({"mode", std::string(to_string(pool->mode)), ""});
  report.facts.push_back({"new_experts", is_left ? 0 : pool->num_new(), ""});
  report.facts.push_back({"calibrated", pool->calibrated, ""});
  report.facts.push_back(
      {"state", is_left ? std::string("ordinary") : std::string(to_string(pool->state)), ""});
}

void add_warnings(const Conversion& conversion, const Job& job, Report& report) {
  const Pool* pool = conversion.pool();
  if (pool != nullptr && job.layout != Layout::Export && pool->state == PoolState::Closed &&
      !pool->calibrated) {
    report.warnings.push_back(
        "biases of foreign slots and a are not calibrated: opening may jump (measure --plan, or "
        "the calibrate stage of train)");
  }
  const auto& parts = job.content->parts();
  const auto cast =
      std::ranges::count_if(parts, [&](const Part& part) { return job.content->is_cast(part); });
  if (cast > 0) {
    report.warnings.push_back(fmt::format(
        "{} were rounded to {}: the result is no longer bit-equal to its source",
        counted(static_cast<uint64_t>(cast), "tensor"), dtype_name(*conversion.dtype())));
  }
  const auto tensors = job.content->dropped().size();
  if (tensors > 0) {
    report.warnings.push_back(
        fmt::format("{} of the source were left out; moue-manifest.json says "
                    "which and why",
                    counted(tensors, "tensor")));
  }
}

void add_link_warnings(const Result& result, Report& report) {
  if (has_shards(result, LinkKind::HardLink)) {
    report.warnings.push_back(
        "shards are hard links: whoever writes into one in place changes the "
        "source too");
  }
  if (has_shards(result, LinkKind::Symlink)) {
    report.warnings.push_back(
        "shards are symbolic links: moving or removing the source breaks them");
  }
}

uint64_t peak_bytes(const Job& job) {
  const uint64_t tensors = job.content->source().tensors().size();
  const uint64_t program = kProgramBytes + tensors * kTensorBytes;
  if (job.shards.empty()) return program;
  return buffers_for(job.stream).bytes() + job.stream.scratch + program;
}

double seconds_for(const Job& job) {
  return static_cast<double>(bytes_to_read(job) + bytes_to_write(job)) / kAssumedRate;
}

std::vector<Value> layout_row(const Conversion& conversion, Layout layout) {
  const std::string name(to_string(layout));
  try {
    const Job job = conversion.job(layout);
    return {name,
            static_cast<int64_t>(bytes_to_read(job)),
            static_cast<int64_t>(bytes_to_write(job)),
            static_cast<int64_t>(job.shards.size()),
            static_cast<int64_t>(peak_bytes(job)),
            seconds_for(job),
            std::string()};
  } catch (const Error& error) {
    const std::string none = "-";
    return {name, none, none, none, none, none, std::string(error.what())};
  }
}

}  // namespace

Report done_report(const Conversion& conversion, const Job& job, const Result& result,
                   const std::filesystem::path& out, double seconds) {
  const std::string directory = conversion.source().directory().string();
  Report report;
  report.verb = "convert";
  report.title = "Converted " + directory + " to " + out.string();
  report.facts = {{"source", directory, ""},
                  {"out", out.string(), ""},
                  {"layout", std::string(to_string(job.layout)), ""},
                  {"shards", shards_text(result), ""},
                  {"source_bytes", static_cast<int64_t>(conversion.source().data_bytes()), "B"},
                  {"bytes_read", static_cast<int64_t>(result.read), "B"},
                  {"bytes_written", static_cast<int64_t>(result.written), "B"}};
  add_pool_facts(conversion, job, report);
  report.facts.push_back({"seconds", seconds, "s"});
  report.facts.push_back(
      {"go_back",
       fmt::format("the source is as it was: remove {} and nothing is left", out.string()), ""});
  report.tables.push_back(files_table(result));
  add_warnings(conversion, job, report);
  add_link_warnings(result, report);
  return report;
}

Report dry_report(const Conversion& conversion, const std::filesystem::path& out) {
  const Job job = conversion.job(conversion.layout());
  const std::string directory = conversion.source().directory().string();
  Report report;
  report.verb = "convert";
  report.title = "Would convert " + directory + " to " + out.string();
  report.facts = {{"source", directory, ""},
                  {"out", out.string(), ""},
                  {"layout", std::string(to_string(job.layout)), ""},
                  {"dry_run", true, ""},
                  {"source_bytes", static_cast<int64_t>(conversion.source().data_bytes()), "B"},
                  {"bytes_to_read", static_cast<int64_t>(bytes_to_read(job)), "B"},
                  {"bytes_to_write", static_cast<int64_t>(bytes_to_write(job)), "B"},
                  {"files_to_write", static_cast<int64_t>(job.shards.size()), ""},
                  {"threads", threads_for(job.stream.threads), ""},
                  {"peak_memory", static_cast<int64_t>(peak_bytes(job)), "B"},
                  {"assumed_rate", kAssumedRate, "B/s"},
                  {"seconds", seconds_for(job), "s"}};
  add_pool_facts(conversion, job, report);
  Table table{
      "layouts",
      "Layouts",
      {"layout", "bytes read", "bytes written", "files", "peak memory", "seconds", "why not"},
      {}};
  for (const Layout layout : {Layout::Linked, Layout::Packed, Layout::Export})
    table.rows.push_back(layout_row(conversion, layout));
  report.tables.push_back(std::move(table));
  add_warnings(conversion, job, report);
  return report;
}

}  // namespace moue
