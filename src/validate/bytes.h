// G0: what can be said about a result without running it: every byte accounted for, the closed
// state closed.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "moue/checkpoint.h"
#include "moue/pool.h"
#include "moue/report.h"
#include "moue/spec.h"

namespace moue {

/// One line a fault; empty where there is none.
using Faults = std::vector<std::string>;

/// Pass without faults, else Fail with their number and the first of them.
Check check_of(std::string name, const Faults& faults, std::string pass_note = "");

/// Whether the result is a MoUE of this source at all: its pool fits the source, every tensor is
/// claimed, the pool's tensors are there as float32 of the right shapes and hold finite numbers,
/// nothing else stands under "moue.". With no block in its config: an ordinary model whose every
/// tensor is claimed.
Faults structure_faults(const Checkpoint& original, const Checkpoint& result);

/// config.json without its block, against the source's; the type of weights aside where they were
/// cast.
Faults config_faults(const Checkpoint& original, const Checkpoint& result);

/// Every source tensor in the result with the same shape and bytes (cast: the source's numbers
/// rounded to the result's float type), and nothing else but the pool's; a tied head need not be
/// stored. Bytes in the same place of the same file are equal; all others are compared.
Faults tensor_faults(const Checkpoint& original, const Checkpoint& result);

/// Foreign router rows that are not, bit for bit, the home layer's rows in float32; new experts
/// that are not their donors; keys or queries of zero.
Faults start_faults(const Checkpoint& original, const Checkpoint& result, const Pool& pool);

/// Numbers that must be zero while the pool is closed: visibility, gain, pool bias. With one of
/// them the result does not compute the source's function, and G1 fails before any forward.
Faults closed_faults(const Checkpoint& result, const Pool& pool);

/// Files that are neither weights, index nor config: missing from the result, or different.
Faults other_file_faults(const Checkpoint& original, const Checkpoint& result);

/// moue-manifest.json against the directory: sizes, hashes, unlisted files, and the fate of each
/// source tensor. A directory without one is a fault where `wanted`.
Faults manifest_faults_of(const Checkpoint& original, const Checkpoint& result, bool wanted);

}  // namespace moue
