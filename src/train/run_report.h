// A run's files as a Report: pictures, tables, what it reached beside another run.
#pragma once

#include "moue/report.h"
#include "train/run_file.h"

namespace moue {

/// `other` (may be null): the run to compare with, such as the control.
Report report_of(const RunLog& run, const RunLog* other);

/// The pictures of that report, each with its data as a table.
void draw_curves(Report& report, const RunLog& run, const RunLog* other);
void draw_pool(Report& report, const RunLog& run);

}  // namespace moue
