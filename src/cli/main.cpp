// The program: argv to one verb, its report to stdout, errors to exit codes.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "cli/progress.h"
#include "cli/verbs.h"
#include "moue/error.h"
#include "moue/recipe.h"
#include "moue/report.h"

namespace {

enum ExitCode { kDone = 0, kDifference = 1, kUserCanMend = 2, kWeMust = 3, kInterrupted = 4 };

/// Read from argv itself, because what fails may be the reading of the command line.
bool wants_json(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--json") == 0) return true;
  }
  return false;
}

void print(const std::string& text) {
  const bool whole = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (!whole || std::fflush(stdout) != 0) {
    moue::fail("cli", "stdout takes no more bytes ({}); is the disk full or the pipe closed?",
               std::strerror(errno));
  }
}

int complain(bool json, const std::string& message, ExitCode code) {
  moue::clear_progress();
  std::fprintf(stderr, "%s\n", message.c_str());
  if (json) std::fputs(moue::error_json(message, code).c_str(), stdout);
  return code;
}

int run(int argc, char** argv) {
  const moue::Recipe recipe = moue::read_recipe(argc, argv);
  if (recipe.verb.empty()) {
    print(recipe.message);
    return kDone;
  }
  moue::show_progress(recipe.quiet);
  const moue::Report report = moue::run_verb(recipe);
  moue::clear_progress();
  print(recipe.json ? to_json(report) : to_text(report));
  return report.passed() ? kDone : kDifference;
}

}  // namespace

int main(int argc, char** argv) {
  const bool json = wants_json(argc, argv);
  try {
    return run(argc, argv);
  } catch (const moue::Interrupted& stop) {
    return complain(json, stop.what(), kInterrupted);
  } catch (const moue::Error& error) {
    return complain(json, error.what(), kUserCanMend);
  } catch (const std::bad_alloc&) {
    return complain(json, "[cli] out of memory; lower --memory, or see train --dry_run",
                    kUserCanMend);
  } catch (const std::exception& error) {
    return complain(json, std::string("[cli] a fault of moue itself: ") + error.what(), kWeMust);
  } catch (...) {
    return complain(json, "[cli] a fault of moue itself, of an unknown kind", kWeMust);
  }
}
