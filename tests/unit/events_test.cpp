// Event files: byte for byte what TensorBoard's own code writes (scripts/record_events), and one
// file behind the other.
#include "train/events.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <sstream>

#include "moue/error.h"
#include "support/faults.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

const std::vector<Scalar> kScalars = {{"loss/train", 3.25}, {"lr", 0.0}, {"long", -1e-30}};

std::string recorded_events(const std::vector<Scalar>& scalars, int64_t step) {
  constexpr double kStart = 1700000000;
  const std::vector<Scalar> held_out = {{"loss/held_out", std::nan("")}};
  const std::vector<Scalar> far = {
      {std::string(300, 'a'), std::numeric_limits<double>::infinity()}};
  return tf_record(version_event(kStart + 0.25)) + tf_record(start_event(kStart + 0.25, 11)) +
         tf_record(scalar_event(kStart + 1.5, step, scalars)) +
         tf_record(scalar_event(kStart + 2.5, 0, held_out)) +
         tf_record(scalar_event(kStart + 3.5, (int64_t{1} << 40) + 5, far));
}

std::vector<fs::path> files_in(const fs::path& directory) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

TEST_CASE("events are byte for byte TensorBoard's", "[golden][events]") {
  const std::string recorded = file_text("tests/golden/tensorboard/events");
  CHECK(recorded_events(kScalars, 20) == recorded);
  // Controls: another step, order of fields or tag is seen.
  CHECK(recorded_events(kScalars, 21) != recorded);
  CHECK(recorded_events({kScalars[1], kScalars[0], kScalars[2]}, 20) != recorded);
  CHECK(recorded_events({kScalars[0], {"rl", 0.0}, kScalars[2]}, 20) != recorded);
}

TEST_CASE("CRC-32C is TensorBoard's", "[golden][events]") {
  CHECK(crc32c("123456789") == 0xE3069283U);
  std::string bytes;
  for (int i = 0; i < 768; ++i) bytes += static_cast<char>(i % 256);
  std::istringstream recorded(file_text("tests/golden/tensorboard/crc32c"));
  int64_t compared = 0;
  for (size_t length = 0, sum = 0; recorded >> length >> sum; ++compared) {
    INFO(length);
    CHECK(crc32c(std::string_view(bytes).substr(0, length)) == sum);
    if (length > 0) CHECK(crc32c(std::string_view(bytes).substr(1, length)) != sum);
  }
  CHECK(compared == 8);
}

TEST_CASE("each run writes a file behind those that are there", "[unit][events]") {
  const ScratchDir folder;
  const fs::path directory = folder / "a/tensorboard";
  for (int run = 0; run < 3; ++run) {
    EventFile file(directory, 1 + 10 * run);
    file.add(10 * run + 5, kScalars);
    const std::vector<fs::path> files = files_in(directory);
    REQUIRE(files.size() == static_cast<size_t>(run) + 1);
    CHECK(files.back().filename().string().starts_with("events.out.tfevents."));
    // Nothing waits in memory: version, start and scalars, each with 16 bytes of frame.
    const auto size = [](const std::string& message) { return message.size() + 16; };
    CHECK(fs::file_size(files.back()) ==
          size(version_event(1)) + size(start_event(1, 1)) + size(scalar_event(1, 5, kScalars)));
  }
  // A name from the future is not overtaken.
  write_text(directory / "events.out.tfevents.9999999990.z.1.0", "");
  EventFile late(directory, 1);
  CHECK(
      files_in(directory).back().filename().string().starts_with("events.out.tfevents.9999999991"));
}

TEST_CASE("a disk that refuses an event file is an error that names it", "[unit][events]") {
  const ScratchDir folder;
  write_text(folder / "tensorboard", "a file");
  std::string message;
  try {
    EventFile file(folder / "tensorboard", 1);
  } catch (const Error& error) {
    message = error.what();
  }
  CHECK_THAT(message, Catch::StartsWith("[train]") && Catch::Contains("tensorboard"));
}
