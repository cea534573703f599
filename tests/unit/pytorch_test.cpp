// Files of torch.save: every type, shape and stride reads as in safetensors, and what is no tensor
// is refused by name. The files are scripts/record_pickles's.
#include "moue/weight_file.h"

#include "checkpoint/strided.h"
#include "moue/checkpoint.h"
#include "support/files.h"
#include "support/messages.h"
#include "support/pickles.h"
#include "support/scratch.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

namespace moue {
namespace {

namespace fs = std::filesystem;
using test::ScratchDir;

const fs::path kFolder = "tests/golden/pytorch";

std::string refusal(const std::string& file) {
  const std::string message = test::message_of([&] { WeightFile(kFolder / file); });
  const std::string start = "[pytorch] " + (kFolder / file).native() + ": ";
  return message.starts_with(start) ? message.substr(start.size()) : message;
}

// Both files hold the same tensors; how many.
size_t check_equal(const fs::path& pickled, const fs::path& plain) {
  const WeightFile a(pickled), b(plain);
  CHECK_FALSE(a.is_safetensors());
  CHECK(b.is_safetensors());
  CHECK(a.tensors().size() == b.tensors().size());
  for (const TensorInfo& wanted : b.tensors()) {
    INFO(wanted.name);
    const TensorInfo& seen = a.at(wanted.name);
    CHECK(dtype_name(seen.dtype) == dtype_name(wanted.dtype));
    CHECK(seen.shape == wanted.shape);
    CHECK(seen.bytes == wanted.bytes);
    CHECK(a.read(seen) == b.read(wanted));
  }
  return b.tensors().size();
}

}  // namespace

TEST_CASE("tensors of torch.save are those of safetensors", "[pytorch]") {
  CHECK(check_equal(kFolder / "types.pth", kFolder / "types.safetensors") == 20);
  CHECK(check_equal(kFolder / "shapes.pth", kFolder / "shapes.safetensors") == 24);
  CHECK(check_equal(kFolder / "module.pth", kFolder / "module.safetensors") == 3);
  CHECK(check_equal(kFolder / "parameters.pth", kFolder / "parameters.safetensors") == 3);
  const WeightFile shapes(kFolder / "shapes.pth");
  CHECK(shapes.at("cube").offset == shapes.at("cube.same").offset);  // one storage
  CHECK(shapes.at("cube").strided == nullptr);
  CHECK(shapes.at("cube.permuted").strided != nullptr);
  CHECK(shapes.read(shapes.at("cube")) != shapes.read(shapes.at("cube.permuted")));
  CHECK(shapes.values("scalar") == std::vector<double>{1.5});
  CHECK_THROWS_WITH(shapes.at("nobody"), Catch::Contains("has no tensor 'nobody'; it holds "));
}

TEST_CASE("any part of a strided tensor is that part of the whole", "[pytorch]") {
  const WeightFile file(kFolder / "shapes.pth");
  std::mt19937 random(3);
  for (const TensorInfo& tensor : file.tensors()) {
    INFO(tensor.name);
    const std::vector<std::byte> whole = file.read(tensor);
    for (int i = 0; i < 40 && !whole.empty(); ++i) {
      const size_t from = random() % whole.size(), size = random() % (whole.size() - from + 1);
      std::vector<std::byte> part(size);
      file.read(tensor, from, part);
      CHECK(std::equal(part.begin(), part.end(), whole.begin() + static_cast<ptrdiff_t>(from)));
    }
    std::vector<std::byte> beyond(whole.size() + 1);
    CHECK_THROWS_AS(file.read(tensor, 0, beyond), std::out_of_range);
  }
}

TEST_CASE("strides larger than the buffer", "[pytorch]") {
  // 700 x 5000 numbers of 4 bytes, seen in many ways, against a walk over every index.
  std::vector<uint32_t> numbers(700 * 5000);
  std::iota(numbers.begin(), numbers.end(), 7U);
  const ReadAt read_at = [&](uint64_t offset, std::span<std::byte> out) {
    std::memcpy(out.data(), std::as_bytes(std::span(numbers)).data() + offset, out.size());
  };
  const std::vector<Strided> views = {{{5000, 700}, {1, 5000}},
                                      {{700, 2, 2500}, {5000, 1, 2}},
                                      {{7, 100, 5000}, {500000, 5000, 1}},
                                      {{100, 7, 2500}, {5000, 500000, 2}},
                                      {{350, 1250}, {10000, 4}},
                                      {{3, 700}, {1600, 5000}},
                                      {{3000000}, {1}},
                                      {{1000}, {3499}}};
  for (const Strided& view : views) {
    INFO(shape_text(view.shape) << " " << shape_text(view.strides));
    std::vector<uint32_t> wanted;
    std::vector<int64_t> index(view.shape.size());
    const int64_t count =
        std::accumulate(view.shape.begin(), view.shape.end(), int64_t{1}, std::multiplies<>());
    for (int64_t i = 0; i < count; ++i) {
      int64_t rest = i, at = 0;
      for (size_t k = view.shape.size(); k-- > 0; rest /= view.shape[k]) {
        at += rest % view.shape[k] * view.strides[k];
      }
      wanted.push_back(numbers[static_cast<size_t>(at)]);
    }
    std::vector<uint32_t> seen(wanted.size());
    read_strided(view, 0, 4, 0, std::as_writable_bytes(std::span(seen)), read_at);
    CHECK(seen == wanted);
    const size_t from = seen.size() / 3, size = seen.size() / 2;
    std::vector<std::byte> part(size * 4 - 3);
    read_strided(view, 0, 4, from * 4 + 1, part, read_at);
    CHECK(std::memcmp(part.data(), std::as_bytes(std::span(wanted)).data() + from * 4 + 1,
                      part.size()) == 0);
  }
}

TEST_CASE("what torch saves beside plain tensors is refused by name", "[pytorch]") {
  CHECK(refusal("module.pth").empty());
  CHECK_THAT(
      refusal("legacy.pth"),
      Catch::StartsWith("it is in PyTorch's form before 1.6, wanted a zip file as torch.save "
                        "writes since 1.6; convert it with: python3 -c "));
  CHECK(refusal("protocol4.pth") == "the pickle does not start with protocol 2, torch.save's own");
  CHECK(refusal("expanded.pth") ==
        "tensor 'a': shape [5, 2] has more elements than its storage of 2 elements; save it with "
        ".contiguous()");
  CHECK(refusal("conjugated.pth") ==
        "torch._utils._rebuild_tensor_v2 has 7 arguments, wanted 6: a conjugated or negated view? "
        "save it with .clone()");
  CHECK(
      refusal("sparse.pth") ==
      "the pickle names 'torch._utils._rebuild_sparse_tensor', which no tensor needs; is the file "
      "hostile?");
  CHECK(refusal("mixed.pth") ==
        "wanted tensors by name and nothing else, but 'step' is an int, 'optimizer' is a dict");
  CHECK(
      refusal("meta.pth") ==
      "the pickle names 'torch._utils._rebuild_meta_tensor_no_storage', which no tensor needs; is "
      "the file hostile?");
  CHECK(
      refusal("complex128.pth") ==
      "the pickle names 'torch.ComplexDoubleStorage', which no tensor needs; is the file hostile?");
  CHECK(refusal("bare.pth") == "the pickle is a tensor, wanted a dict of names and tensors");
  CHECK(refusal("object.pth") ==
        "the pickle names 'torch.nn.modules.container.Sequential', which no tensor needs; is the "
        "file hostile?");
  CHECK(refusal("script.pth") ==
        "entry 'script/code/__torch__/torch/nn/modules/linear.py' is compressed (method 8), wanted "
        "stored, as torch.save writes it");
}

TEST_CASE("a damaged byte of a storage is found when it is read", "[pytorch]") {
  const ScratchDir scratch;
  std::string bytes = test::file_text(kFolder / "shapes.pth");
  const WeightFile good(kFolder / "shapes.pth");
  bytes[good.at("row").offset + 3] ^= 4;
  const WeightFile file(scratch.write("x.pth", bytes));
  CHECK_THROWS_WITH(file.read(file.at("row")),
                    Catch::Contains("sums to") && Catch::EndsWith("the file is damaged"));
  std::byte one{};
  CHECK_THROWS_AS(file.read(file.at("row"), 35, {&one, 1}), Error);  // again, and for any part
  CHECK(file.read(file.at("cube")) == good.read(good.at("cube")));
}

namespace {

// The message of the refusal, "" where all tensors can be read.
std::string refusal_of(const ScratchDir& scratch, const std::string& bytes) {
  fs::remove(scratch / "x");
  return test::message_of([&] {
    const WeightFile file(scratch.write("x", bytes));
    for (const TensorInfo& tensor : file.tensors()) file.read(tensor);
  });
}

void check_refused(const std::vector<test::FileCase>& cases) {
  const ScratchDir scratch;
  const std::string start = "[pytorch] " + (scratch / "x").native() + ": ";
  for (const test::FileCase& bad : cases) {
    INFO(bad.name);
    CHECK(refusal_of(scratch, bad.bytes) == start + bad.message);
  }
}

}  // namespace

TEST_CASE("every hostile pickle is refused by name, and nothing runs", "[pytorch]") {
  const ScratchDir scratch;
  const fs::path canary = scratch / "canary";
  const auto cases = test::malformed_pickles(canary.native());
  CHECK(cases.size() >= 110);
  check_refused(cases);
  CHECK_FALSE(fs::exists(canary));
  test::write_text(canary, "");  // the path is one that can be made
  CHECK(fs::exists(canary));
}

TEST_CASE("every malformed zip file is refused", "[pytorch]") {
  const auto cases = test::malformed_zips();
  CHECK(cases.size() >= 50);
  check_refused(cases);
}

TEST_CASE("odd files of torch.save load", "[pytorch]") {
  const ScratchDir scratch;
  for (const test::FileCase& odd : test::odd_torch_files()) {
    INFO(odd.name);
    CHECK(refusal_of(scratch, odd.bytes) == "");
  }
}

TEST_CASE("a file of torch.save cut at any byte is refused", "[pytorch]") {
  const ScratchDir scratch;
  const std::string whole = test::odd_torch_files()[1].bytes;
  CHECK(refusal_of(scratch, whole) == "");
  for (size_t size = 0; size < whole.size(); ++size) {
    INFO("cut to " << size);
    CHECK(refusal_of(scratch, whole.substr(0, size)) != "");
  }
}

}  // namespace moue
