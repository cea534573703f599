// Checkpoint: model directories that open, and every way in which one does not.
#include "moue/checkpoint.h"

#include "moue/error.h"
#include "support/files.h"
#include "support/scratch.h"

#include <catch2/catch.hpp>

namespace moue {

TEST_CASE("the golden source opens", "[checkpoint]") {
  const Checkpoint model = open_checkpoint("tests/golden/families/mixtral");
  CHECK(model.files().size() == 5);
  CHECK(model.data_bytes() == 223488);
  CHECK(model.config().string("model_type") == "mixtral");
  CHECK(model.other_files() == std::vector<std::string>{"generation_config.json"});
  CHECK(model.at("lm_head.weight").shape == std::vector<int64_t>{61, 24});
  CHECK(model.find("lm_head.weigh") == nullptr);
  CHECK(model.read(model.at("lm_head.weight")).size() == 61 * 24 * 4);
}

TEST_CASE("a missing shard is named", "[checkpoint]") {
  const test::ScratchDir scratch;
  test::copy_tree("tests/golden/families/mixtral", scratch / "model");
  std::filesystem::remove(scratch / "model/model-00002-of-00005.safetensors");
  CHECK_THROWS_WITH(
      open_checkpoint(scratch / "model"),
      Catch::Contains("1 of 5 shards is missing: 'model-00002-of-00005.safetensors'"));
}

}  // namespace moue
