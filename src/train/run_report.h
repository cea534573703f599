// A run's files as a Report: pictures, tables, what it reached beside another run.
#pragma once

#include "moue/report.h"
#include "train/run_file.h"

namespace moue {

/// `other` (may be null): the run to compare with, such as the control.
Report report_of(const RunLog& run, const RunLog* other);

/// What the other run is called beside this one: "control" where it is one.
const char* name_of(const RunLog& other);

// The pictures of that report in this order, each with its data as a table.
void draw_progress(Report& report, const RunLog& run, const RunLog* other);  ///< losses, opening
void draw_pool(Report& report, const RunLog& run);
void draw_workings(Report& report, const RunLog& run, const RunLog* other);  ///< all else

}  // namespace moue
