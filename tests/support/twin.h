// The same model on disk in another form of its family.
#pragma once

#include <filesystem>

#include "moue/checkpoint.h"

namespace moue::test {

/// Writes a twin of a plain float32 source whose routed blocks have the given form; the other
/// tensors, config and all are the source's.
void write_twin(const Checkpoint& source, size_t form, const std::filesystem::path& directory);

}  // namespace moue::test
