// What a conversion has done, or would do.
#pragma once

#include "convert/conversion.h"
#include "moue/report.h"

namespace moue {

/// Memory that the program takes beside its buffers, and for each tensor of the source (measured on
/// 91,991 of them).
constexpr uint64_t kProgramBytes = uint64_t{64} << 20;
constexpr uint64_t kTensorBytes = 1 << 10;

Report done_report(const Conversion& conversion, const Job& job, const Result& result,
                   const std::filesystem::path& out, double seconds);

/// Every layout beside the others, and the one asked for in the facts. Writes nothing.
Report dry_report(const Conversion& conversion, const std::filesystem::path& out);

}  // namespace moue
