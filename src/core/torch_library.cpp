// Loads libmoue_torch.so on demand, so that verbs without LibTorch do not pay for it.
#include "core/torch_library.h"

#include "core/tree.h"
#include "moue/error.h"

#include <dlfcn.h>

#include <filesystem>
#include <mutex>

namespace moue {
namespace fs = std::filesystem;
namespace {

fs::path library_file() {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<void*>(&torch_symbol), &info) == 0 || info.dli_fname == nullptr) {
    fail("torch", "the folder of libmoue.so is unknown, so libmoue_torch.so cannot be found");
  }
  return fs::absolute(info.dli_fname).parent_path() / "libmoue_torch.so";
}

void* load_library() {
  const fs::path file = library_file();
  if (!stands(file)) {
    fail("torch",
         "this verb runs the model and needs {}, which is not there; build it: scripts/setup, then "
         "cmake --preset full && cmake --build --preset full, and use build/full/moue",
         file.native());
  }
  void* handle = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    fail("torch", "{} cannot be loaded: {}; run scripts/setup again and rebuild preset full",
         file.native(), ::dlerror());
  }
  return handle;
}

}  // namespace

void* torch_symbol(const char* name) {
  static std::mutex mutex;
  static void* handle = nullptr;
  std::lock_guard lock(mutex);
  if (handle == nullptr) handle = load_library();
  void* symbol = ::dlsym(handle, name);
  if (symbol == nullptr) {
    fail("torch",
         "libmoue_torch.so has no '{}'; it is of another build than libmoue.so, rebuild both",
         name);
  }
  return symbol;
}

}  // namespace moue
