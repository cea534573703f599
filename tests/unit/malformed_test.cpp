// The catalogues of malformed models, configs, indices and recipes, with those of safetensors and
// PyTorch files: each case has its stable message and takes no memory beyond its size.
#include "support/malformed_models.h"

#include "checkpoint/index.h"
#include "core/text.h"
#include "moue/checkpoint.h"
#include "moue/family.h"
#include "moue/recipe.h"
#include "support/files.h"
#include "support/memory.h"
#include "support/messages.h"
#include "support/pickles.h"
#include "support/scratch.h"

#include <catch2/catch.hpp>

#include <functional>
#include <map>

namespace moue {
namespace {

namespace fs = std::filesystem;
using test::message_of;
using test::ScratchDir;

constexpr const char* kGolden = "tests/golden/families/mixtral";
const fs::path kRecorded = "tests/golden/malformed";

// What is said of each case; paths of this run are left out.
using Said = std::map<std::string, std::string>;

std::string without(std::string message, const std::string& path) {
  for (size_t at = 0; (at = message.find(path)) != message.npos;) message.erase(at, path.size());
  return message;
}

void read_model(const fs::path& directory) {
  const Checkpoint model = open_checkpoint(directory);
  const Family& family = family_of(model.config());
  const Claims claims = claim(model, family);
  for (const TensorInfo& tensor : model.tensors()) model.values(tensor);
}

Said said_of_models() {
  Said said;
  for (const test::ModelCase& bad : test::malformed_models()) {
    const ScratchDir scratch;
    const fs::path model = scratch / "model";
    test::copy_tree(kGolden, model);
    bad.change(model);
    said[bad.name] = without(message_of([&] { read_model(model); }), model.native());
  }
  return said;
}

template <class Read>
Said said_of(const std::vector<test::TextCase>& cases, Read read) {
  Said said;
  const ScratchDir scratch;
  for (const test::TextCase& bad : cases) {
    const std::string message = message_of([&] { read(bad.text, scratch / "index.json"); });
    said[bad.name] = without(message, scratch.path().native());
  }
  return said;
}

Said said_of_configs() {
  const std::string good = test::file_text(fs::path(kGolden) / "config.json");
  return said_of(test::malformed_configs(good), [](const std::string& text, const fs::path&) {
    const Config config = Config::parse(text, "config.json");
    family_of(config).spec(config);
  });
}

Said said_of_indices() {
  return said_of(test::malformed_indices(), [](const std::string& text, const fs::path& file) {
    test::write_text(file, text);
    read_index(file);
  });
}

Said said_of_recipes() {
  return said_of(test::malformed_recipes(), [](const std::string& text, const fs::path&) {
    parse_recipe(text, "recipe.toml");
  });
}

std::string listed(const Said& said) {
  std::string text;
  for (const auto& [name, message] : said) {
    text += fmt::format("{}: {}\n", name, printable(message, 600));
  }
  return text;
}

const std::map<std::string, Said (*)()> kCatalogues = {{"models", said_of_models},
                                                       {"configs", said_of_configs},
                                                       {"indices", said_of_indices},
                                                       {"recipes", said_of_recipes}};

}  // namespace

TEST_CASE("every malformed model, config, index and recipe says what it is", "[malformed]") {
  for (const auto& [name, run] : kCatalogues) {
    INFO(name);
    const Said said = run();
    for (const auto& [what, message] : said) {
      INFO(what);
      CHECK(message.starts_with('['));  // refused, in the house's grammar
      CHECK(message.size() < 6000);
    }
    CHECK(listed(said) == test::file_text(kRecorded / (name + ".txt")));
  }
}

TEST_CASE("messages of malformed input are recorded", "[.record]") {
  for (const auto& [name, run] : kCatalogues) {
    test::write_text(kRecorded / (name + ".txt"), listed(run()));
  }
}

TEST_CASE("the catalogues hold at least 300 cases", "[malformed]") {
  const std::string good = test::file_text(fs::path(kGolden) / "config.json");
  const size_t cases = test::malformed_files().size() + test::odd_files().size() +
                       test::malformed_pickles("x").size() + test::malformed_zips().size() +
                       test::odd_torch_files().size() + test::malformed_models().size() +
                       test::malformed_configs(good).size() + test::malformed_indices().size() +
                       test::malformed_recipes().size();
  WARN(cases << " cases");
  CHECK(cases >= 300);
}

TEST_CASE("no malformed file of torch.save, config or recipe takes memory beyond its size",
          "[malformed][no_asan]") {
  const ScratchDir scratch;
  constexpr uint64_t kAround = 8 << 20;
  auto files = test::malformed_pickles((scratch / "canary").native());
  for (const test::FileCase& bad : test::malformed_zips()) files.push_back(bad);
  for (const test::FileCase& bad : files) {
    INFO(bad.name);
    fs::remove(scratch / "x");
    const fs::path file = scratch.write("x", bad.bytes);
    // A pickle's machine takes 24 bytes and less for a byte of the pickle.
    CHECK(test::works_within(24 * bad.bytes.size() + kAround, [&] {
      return !message_of([&] {
                const WeightFile weights(file);
                for (const TensorInfo& tensor : weights.tensors()) weights.read(tensor);
              }).empty();
    }));
  }
  for (const test::TextCase& bad : test::malformed_recipes()) {
    INFO(bad.name);
    CHECK(test::works_within(kAround, [&] {
      return !message_of([&] { parse_recipe(bad.text, "recipe.toml"); }).empty();
    }));
  }
}

}  // namespace moue
