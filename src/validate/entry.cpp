// validate() of libmoue.so: G0 here, then G1-G3 by the part that needs LibTorch.
#include <optional>

#include "core/files.h"
#include "core/torch_verbs.h"
#include "core/tree.h"
#include "moue/error.h"
#include "moue/validate.h"
#include "validate/bytes.h"
#include "validate/compare.h"

namespace moue {

namespace fs = std::filesystem;

namespace {

Check not_applicable(std::string name, std::string note) {
  return {std::move(name), Outcome::NotApplicable, {}, {}, std::move(note)};
}

// A result that cannot be opened has failed; a path that is no model directory is the user's slip
// and throws.
std::optional<Checkpoint> open_result(const fs::path& directory, Report& report) {
  const bool is_model = is_file(directory / "config.json");
  try {
    return open_checkpoint(directory);
  } catch (const Error& error) {
    if (!is_model) throw;
    report.checks.push_back(check_of("G0 structure", {error.what()}));
    return {};
  }
}

// Which gates apply: the expected state where one is given, else what the directory says of itself.
// Nothing for an ordinary model, which is held against the source like a trained one.
std::optional<PoolState> deciding_state(const Checkpoint& result, const ValidateOptions& options,
                                        Report& report) {
  std::optional<PoolState> own;
  if (is_moue(result.config())) own = read_pool(result.config()).state;
  const std::string name(own ? to_string(*own) : "ordinary");
  report.facts.push_back({"state", name, ""});
  if (options.expect.empty()) return own;
  const PoolState expected = pool_state(options.expect);
  const bool same = own == expected;
  report.checks.push_back({"state",
                           same ? Outcome::Pass : Outcome::Fail,
                           {},
                           {},
                           same ? name : fmt::format("{}, expected {}", name, options.expect)});
  return expected;
}

// What G0 compared where weights have another type than the source's.
std::string casts_text(const Casts& casts) {
  if (casts.tensors == 0) return "";
  return fmt::format("; {} of them equal the source's numbers in {}{}", casts.tensors, casts.types,
                     casts.lossy ? ", rounded: not bit-equal to the source" : "");
}

// The gates of a closed pool. Returns whether G1 may run: the closed state is really closed.
bool closed_gates(const Checkpoint& original, const Checkpoint& result, Report& report) {
  const Pool pool = read_pool(result.config());
  const Casts casts = casts_of(original, result);
  auto& checks = report.checks;
  checks.push_back(check_of("G0 config", config_faults(original, result)));
  checks.push_back(check_of("G0 tensors", tensor_faults(original, result),
                            fmt::format("{} tensors, {}{}", original.tensors().size(),
                                        bytes_text(original.data_bytes()), casts_text(casts))));
  checks.push_back(check_of("G0 start values", start_faults(original, result, pool)));
  checks.push_back(check_of("G0 other files", other_file_faults(original, result),
                            fmt::format("{} files", original.other_files().size())));
  checks.push_back(check_of("G0 manifest", manifest_faults_of(original, result, true)));
  checks.push_back(check_of("G1 closed", closed_faults(result, pool)));
  const bool is_closed = checks.back().outcome == Outcome::Pass;
  if (casts.lossy)
    checks.push_back(
        not_applicable("G1", "not applicable: weights were rounded to " + casts.types));
  return is_closed && !casts.lossy;
}

bool open_gates(const Checkpoint& original, const Checkpoint& result, const std::string& state,
                Report& report) {
  report.checks.push_back(check_of("G0 manifest", manifest_faults_of(original, result, false)));
  report.checks.push_back(not_applicable("G0 bytes", "not applicable: " + state));
  report.checks.push_back(not_applicable("G1", "not applicable: " + state));
  return false;
}

void run_gates(const Checkpoint& original, const Checkpoint& result, const ValidateOptions& options,
               Report& report) {
  const Faults faults = structure_faults(original, result);
  report.checks.push_back(check_of("G0 structure", faults));
  if (!faults.empty()) return;
  const std::optional<PoolState> state = deciding_state(result, options, report);
  // An ordinary model has nothing of the pool that closed gates look at; its state check has failed
  // already.
  const bool closed = state == PoolState::Closed && is_moue(result.config());
  const std::string name = state ? std::string(to_string(*state)) : "an ordinary model";
  const bool equality =
      closed ? closed_gates(original, result, report) : open_gates(original, result, name, report);
  if (options.only_bytes) {
    report.checks.push_back(not_applicable("G1-G3", "not run: only_bytes"));
    return;
  }
  torch_verbs().validate_model(original, result, options, equality, report);
}

}  // namespace

Report validate(const Checkpoint& original, const fs::path& result,
                const ValidateOptions& options) {
  if (is_moue(original.config())) {
    fail("validate", "{} is a MoUE, wanted the model that {} was made from",
         original.directory().string(), result.string());
  }
  if (!options.expect.empty()) pool_state(options.expect);
  if (!options.only_bytes) torch_verbs();  // where it is missing, say so before a long comparison
  Report report;
  report.verb = "validate";
  report.title = "Validation of " + result.string() + " against " + original.directory().string();
  report.facts = {{"original", original.directory().string(), ""}, {"result", result.string(), ""}};
  if (const auto opened = open_result(result, report))
    run_gates(original, *opened, options, report);
  if (!options.html.empty()) write_file_whole(options.html, to_html(report));
  return report;
}

}  // namespace moue
