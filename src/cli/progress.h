// Lines and progress on stderr: a line that renews itself on a terminal, an occasional one
// elsewhere.
#pragma once

#include <string>

#include "moue/log.h"

namespace moue {

/// Installs the log sink. Quiet drops lines and progress; errors are not the log's business.
void show_progress(bool quiet);

/// Wipes the progress line, so that what follows on the terminal starts on a clean one.
void clear_progress();

/// "[train] 40 of 300 steps, 1.2 steps/s, 3 m 37 s left, loss 2.3141"; rate 0 = not yet known.
std::string progress_text(const Progress& progress, double rate);

}  // namespace moue
