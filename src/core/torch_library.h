// The way from the core to the part that needs LibTorch: libmoue_torch.so, loaded when a verb asks
// for it.
#pragma once

namespace moue {

/// The address of an exported symbol of libmoue_torch.so, which lies beside libmoue.so and is
/// loaded once. Throws Error saying how to get it where it is missing or cannot be loaded.
void* torch_symbol(const char* name);

}  // namespace moue
