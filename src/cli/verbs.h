// The verbs as the program runs them: recipe in, report out.
#pragma once

#include <string>

#include "moue/recipe.h"
#include "moue/report.h"

namespace moue {

/// Runs recipe.verb and writes its files. The report names them and carries the recipe's warnings.
Report run_verb(const Recipe& recipe);

/// {"error": {"stage", "message", "exit_code"}} of a message "[stage] ...".
std::string error_json(const std::string& message, int exit_code);

}  // namespace moue
