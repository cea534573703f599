// moue_kernel_bench: the kernels' bytes per second beside a plain copy in the same run, on the CPU
// and, where there is one, on the CUDA device. Bytes are the least a kernel must move: each input
// read once, each output written once.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string_view>
#include <thread>

#include "bench/kernel_cases.h"
#include "support/kernel_device.h"

using namespace moue;
using namespace moue::bench;
namespace device = moue::test::device;

namespace {

struct Options {
  bool json = false;
  bool quick = false;  ///< small shapes, few repeats: is it alive?
  unsigned threads = 1;
  std::string_view only;  ///< part of a kernel's name
};

constexpr std::string_view kUsage =
    "moue_kernel_bench [--json] [--quick] [--threads N] [--only PART_OF_A_NAME]\n";

bool parse(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--json")
      options.json = true;
    else if (flag == "--quick")
      options.quick = true;
    else if (flag == "--threads" && i + 1 < argc)
      options.threads = static_cast<unsigned>(std::max(1, std::atoi(argv[++i])));
    else if (flag == "--only" && i + 1 < argc)
      options.only = argv[++i];
    else
      return false;
  }
  return true;
}

unsigned num_threads = 1;

// Equal shares, one thread each.
void on_threads(int64_t size, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
  const int64_t pieces = std::min<int64_t>(num_threads, (size + grain - 1) / grain);
  if (pieces <= 1) {
    if (size > 0) body(context, 0, size);
    return;
  }
  std::vector<std::thread> threads;
  for (int64_t p = 0; p < pieces; ++p)
    threads.emplace_back(body, context, size * p / pieces, size * (p + 1) / pieces);
  for (std::thread& thread : threads) thread.join();
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The fastest repeat: what other programs take away is not the kernel's.
double cpu_seconds(const std::function<void()>& run, bool quick) {
  double best = 1e9;
  const double begin = now();
  for (int i = 0; i < 3 || (!quick && i < 50 && now() - begin < 0.5); ++i) {
    const double start = now();
    run();
    best = std::min(best, now() - start);
  }
  return best;
}

double cuda_seconds(const std::function<void()>& run, bool quick) {
  const auto launch = [](void* f) { (*static_cast<const std::function<void()>*>(f))(); };
  void* context = const_cast<std::function<void()>*>(&run);
  device::seconds(3, launch, context);  // warm
  return device::seconds(quick ? 3 : 20, launch, context);
}

struct Measured {
  std::string place, name, element, shape;
  double bytes, seconds, ceiling;
};

void measure_place(kernels::Where where, const Options& options, std::vector<Measured>& all) {
  const std::string place = where.cuda ? "cuda" : "cpu";
  const Shapes shapes = options.quick ? quick_shapes() : where.cuda ? cuda_shapes() : cpu_shapes();
  const auto seconds = [&](const std::function<void()>& run) {
    return where.cuda ? cuda_seconds(run, options.quick) : cpu_seconds(run, options.quick);
  };
  Case copy = copy_case(where, shapes);
  const double copied = seconds(copy.run), ceiling = copy.bytes / copied;
  all.push_back({place, copy.name, "", copy.shape, copy.bytes, copied, ceiling});
  copy = {};
  for (const Make make : kernel_cases()) {
    for (const kernels::Element element : {kernels::Element::Float32, kernels::Element::BFloat16}) {
      const Case c = make(where, element, shapes);
      if (c.name.find(options.only) == std::string::npos) continue;
      if (c.float32_only && element != kernels::Element::Float32) continue;
      const bool wide = element == kernels::Element::Float32;
      all.push_back({place, c.name, wide ? "float32" : "bfloat16", c.shape, c.bytes, seconds(c.run),
                     ceiling});
    }
  }
}

void print_table(std::FILE* to, const std::vector<Measured>& all) {
  fmt::print(to, "{:<5} {:<26} {:<9} {:<34} {:>9} {:>10} {:>9} {:>6}\n", "place", "kernel",
             "element", "shape", "MB", "ms", "GB/s", "copy");
  for (const Measured& m : all) {
    const double rate = m.bytes / m.seconds;
    fmt::print(to, "{:<5} {:<26} {:<9} {:<34} {:>9.2f} {:>10.4f} {:>9.2f} {:>5.0f}%\n", m.place,
               m.name, m.element, m.shape, m.bytes * 1e-6, m.seconds * 1e3, rate * 1e-9,
               100 * rate / m.ceiling);
  }
}

void print_json(const std::vector<Measured>& all, const Options& options) {
  fmt::print("{{\"device\": \"{}\", \"threads\": {}, \"kernels\": [", device::name(),
             options.threads);
  const char* comma = "";
  for (const Measured& m : all) {
    fmt::print(
        "{}\n  {{\"place\": \"{}\", \"kernel\": \"{}\", \"element\": \"{}\", \"shape\": \"{}\", "
        "\"bytes\": {:.0f}, \"seconds\": {:.9f}, \"bytes_per_second\": {:.0f}, "
        "\"share_of_copy\": {:.4f}}}",
        comma, m.place, m.name, m.element, m.shape, m.bytes, m.seconds, m.bytes / m.seconds,
        m.bytes / m.seconds / m.ceiling);
    comma = ",";
  }
  fmt::print("\n]}}\n");
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, options)) {
    fmt::print(stderr, kUsage);
    return 2;
  }
  num_threads = options.threads;
  kernels::set_parallel_for(on_threads);
  std::vector<Measured> all;
  measure_place({}, options, all);
  if (device::state() == device::State::Ready)
    measure_place({.cuda = true}, options, all);
  else
    fmt::print(stderr, "CUDA left out: {}\n", device::name());
  print_table(options.json ? stderr : stdout, all);
  if (options.json) print_json(all, options);
}
