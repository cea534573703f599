// Reading and writing of one safetensors file.
#include "moue/safetensors.h"

#include "core/sha256.h"
#include "moue/error.h"
#include "support/files.h"
#include "support/scratch.h"

#include <catch2/catch.hpp>

namespace moue {

TEST_CASE("what is written is read", "[safetensors]") {
  const test::ScratchDir scratch;
  const std::vector<float> numbers = {1, 2.5, -3, 4, 5, 6};
  const TensorView view{"a", Dtype::F32, {2, 3}, std::as_bytes(std::span(numbers))};
  const FileDigest digest = write_safetensors(scratch / "a.safetensors", {&view, 1});
  CHECK(digest.sha256 == sha256_of_file(scratch / "a.safetensors"));
  const SafetensorsFile file(scratch / "a.safetensors");
  CHECK(file.size() == digest.bytes);
  CHECK(file.data_offset() % 64 == 0);
  CHECK(file.values("a") == std::vector<double>{1, 2.5, -3, 4, 5, 6});
  CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}});
  CHECK_THROWS_WITH(write_safetensors(scratch / "a.safetensors", {&view, 1}),
                    Catch::Contains("exists, wanted a new file"));
}

}  // namespace moue
