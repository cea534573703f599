// What a conversion has done, or would do.
#pragma once

#include "convert/conversion.h"
#include "moue/report.h"

namespace moue {

/// Memory that the program takes beside its buffers.
constexpr uint64_t kProgramBytes = uint64_t{64} << 20;

Report done_report(const Conversion& conversion, const Job& job, const Result& result,
                   const std::filesystem::path& out, double seconds);

/// Every layout beside the others, and the one asked for in the facts. Writes nothing.
Report dry_report(const Conversion& conversion, const std::filesystem::path& out);

}  // namespace moue
