// How single values of a report read in text and HTML.
#pragma once

#include <string>

#include "moue/report.h"

namespace moue {

/// A fact's value with its unit: bytes and seconds in words, everything else as "value unit".
std::string fact_text(const Fact& fact);

/// "0.3 > 0.0001" or "0 <= 0"; "" where the check carries no value.
std::string bound_text(const Check& check);

/// True for cells that are set flush right.
bool is_number(const Value& value);

}  // namespace moue
