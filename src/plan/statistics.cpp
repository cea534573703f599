// statistics.safetensors: float64 tensors and words in the metadata, read strictly.
#include "moue/statistics.h"

#include "core/files.h"
#include "core/text.h"
#include "core/tree.h"
#include "moue/error.h"
#include "moue/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <system_error>

namespace moue {

namespace {

constexpr const char* kFormat = "moue-statistics-1";

std::string layer_name(size_t layer, const char* rest) {
  return fmt::format("layers.{}.{}", layer, rest);
}

// The tensors of a file in writing; views borrow from the values kept here.
class Tensors {
 public:
  void add(std::string name, std::vector<int64_t> shape, std::vector<double> values) {
    values_.push_back(std::move(values));
    views_.push_back(
        {std::move(name), Dtype::F64, std::move(shape), std::as_bytes(std::span(values_.back()))});
  }
  void add(std::string name, const std::vector<double>& values) {
    add(std::move(name), {static_cast<int64_t>(values.size())}, values);
  }
  void add(std::string name, std::vector<int64_t> shape, const std::vector<Home>& values) {
    static_assert(sizeof(Home) == 2 * sizeof(int32_t));
    views_.push_back(
        {std::move(name), Dtype::I32, std::move(shape), std::as_bytes(std::span(values))});
  }
  void add(std::string name, const std::vector<int32_t>& values) {
    views_.push_back({std::move(name),
                      Dtype::I32,
                      {static_cast<int64_t>(values.size())},
                      std::as_bytes(std::span(values))});
  }
  std::span<const TensorView> views() const { return views_; }

 private:
  std::vector<std::vector<double>> values_;  // moving a vector leaves its elements where they are
  std::vector<TensorView> views_;
};

int64_t whole(size_t value) { return static_cast<int64_t>(value); }

void add_similarity(const Similarity& similarity, Tensors& tensors) {
  std::vector<double> scores;
  for (const std::vector<double>& layer : similarity.score)
    scores.insert(scores.end(), layer.begin(), layer.end());
  const int64_t layers = whole(similarity.score.size());
  tensors.add("similarity.score", {layers, whole(similarity.score[0].size())}, std::move(scores));
  tensors.add("similarity.reach", std::vector<double>{static_cast<double>(similarity.reach)});
  tensors.add("similarity.samples", std::vector<double>{static_cast<double>(similarity.samples)});
}

constexpr int64_t kHomes = 6, kNumbers = 4;  // of a replacement

void add_replacements(const std::vector<Replacement>& replacements, Tensors& tensors) {
  std::vector<double> all;
  for (const Replacement& r : replacements) {
    for (const Home home : {r.replaced, r.best, r.random}) {
      all.push_back(home.layer);
      all.push_back(home.expert);
    }
    all.insert(all.end(), {r.best_score, r.random_score, r.best_loss, r.random_loss});
  }
  tensors.add("replacements", {whole(replacements.size()), kHomes + kNumbers}, std::move(all));
}

Tensors tensors_of(const Statistics& s) {
  Tensors tensors;
  const size_t layers = s.load.size(), experts = layers ? s.load[0].size() : 0;
  std::vector<double> load;
  for (const std::vector<double>& layer : s.load)
    load.insert(load.end(), layer.begin(), layer.end());
  tensors.add("loss", std::vector<double>{s.loss});
  tensors.add("load", {static_cast<int64_t>(layers), static_cast<int64_t>(experts)},
              std::move(load));
  tensors.add("margin", s.margin);
  tensors.add("entropy", s.entropy);
  tensors.add("output_rms", s.output_rms);
  if (!s.similarity.score.empty()) add_similarity(s.similarity, tensors);
  if (!s.replacements.empty()) add_replacements(s.replacements, tensors);
  if (s.slots.empty()) return tensors;
  if (!s.donors.empty()) tensors.add("donors", {whole(s.donors.size()), 2}, s.donors);
  tensors.add("eps", std::vector<double>{s.eps});
  for (size_t layer = 0; layer < layers; ++layer) {
    tensors.add(layer_name(layer, "slots"), s.slots[layer]);
    tensors.add(layer_name(layer, "beta"), s.beta[layer]);
    tensors.add(layer_name(layer, "scale"), s.scale[layer]);
    if (!s.correction.empty()) tensors.add(layer_name(layer, "correction"), s.correction[layer]);
  }
  return tensors;
}

class Reader {
 public:
  explicit Reader(const std::filesystem::path& file) : file_(file) {}

  std::string word(const char* key) {
    const auto found = file_.metadata().find(key);
    if (found != file_.metadata().end()) return found->second;
    fault("metadata has no '{}'", key);
    return "";
  }

  int64_t count(const char* key) {
    const std::string text = word(key);
    int64_t value = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size() && value >= 0) return value;
    fault("metadata {} is {}, wanted a count", key, in_quotes(text));
    return 0;
  }

  bool has(const std::string& name) const { return file_.find(name) != nullptr; }

  /// Finite float64 values of this shape; -1 stands for any size. Empty where something is wrong.
  std::vector<double> values(const std::string& name, const std::vector<int64_t>& shape) {
    if (!take(name, Dtype::F64, shape)) return {};
    std::vector<double> result = file_.values(name);
    for (double value : result) {
      if (std::isfinite(value)) continue;
      fault("{} holds {}, wanted finite numbers", name, value);
      return {};
    }
    return result;
  }

  double value(const std::string& name) {
    const std::vector<double> result = values(name, {1});
    return result.empty() ? 0 : result[0];
  }

  std::vector<int32_t> integers(const std::string& name, const std::vector<int64_t>& shape = {-1}) {
    if (!take(name, Dtype::I32, shape)) return {};
    const std::vector<double> read = file_.values(name);
    return {read.begin(), read.end()};
  }

  template <class... Args>
  void fault(fmt::format_string<Args...> text, Args&&... args) {
    faults_.push_back(fmt::format(text, std::forward<Args>(args)...));
  }

  /// Throws where anything was wrong, or a tensor was not asked for.
  void finish() {
    if (taken_ < file_.tensors().size() && faults_.empty()) {
      fault("{} tensors, wanted {}", file_.tensors().size(), taken_);
    }
    if (faults_.empty()) return;
    fail("statistics", "{}: {}; measure the source again", printable(file_.path().string(), 400),
         join_some(faults_));
  }

 private:
  bool take(const std::string& name, Dtype dtype, const std::vector<int64_t>& shape) {
    const TensorInfo* tensor = file_.find(name);
    if (!tensor) {
      fault("no tensor '{}'", name);
      return false;
    }
    ++taken_;
    bool fits = tensor->dtype == dtype && tensor->shape.size() == shape.size();
    for (size_t i = 0; fits && i < shape.size(); ++i)
      fits = shape[i] < 0 || shape[i] == tensor->shape[i];
    if (fits) return true;
    std::vector<std::string> wanted;
    for (int64_t size : shape) wanted.push_back(size < 0 ? "n" : std::to_string(size));
    fault("{} is {} {}, wanted {} [{}]", name, dtype_name(tensor->dtype), shape_text(tensor->shape),
          dtype_name(dtype), join(wanted));
    return false;
  }

  SafetensorsFile file_;
  std::vector<std::string> faults_;
  size_t taken_ = 0;
};

std::vector<std::vector<double>> rows_of(const std::vector<double>& values, size_t layers) {
  std::vector<std::vector<double>> rows;
  const size_t width = layers ? values.size() / layers : 0;
  for (size_t layer = 0; layer < layers; ++layer) {
    rows.emplace_back(values.begin() + layer * width, values.begin() + (layer + 1) * width);
  }
  return rows;
}

void check_load(const Statistics& s, Reader& reader) {
  for (size_t layer = 0; layer < s.load.size(); ++layer) {
    double sum = 0, least = 0;
    for (double share : s.load[layer]) {
      sum += share;
      least = std::min(least, share);
    }
    if (least < 0 || std::abs(sum - 1) > 1e-6) {
      reader.fault("load of layer {} has a sum of {} and a least share of {}, wanted shares of 1",
                   layer, sum, least);
    }
  }
}

void read_similarity(Reader& reader, size_t layers, size_t experts, Similarity& similarity) {
  const auto all = static_cast<int64_t>(layers * experts);
  const std::vector<double> scores =
      reader.values("similarity.score", {static_cast<int64_t>(layers), all});
  similarity.inputs = "tokens";
  similarity.kind = reader.word("similarity");
  if (similarity.kind != "output" && similarity.kind != "cka") {
    reader.fault("similarity is {}, wanted 'output' or 'cka'", in_quotes(similarity.kind));
  }
  similarity.reach = static_cast<int64_t>(reader.value("similarity.reach"));
  similarity.samples = static_cast<int64_t>(reader.value("similarity.samples"));
  similarity.score = rows_of(scores, scores.empty() ? 0 : layers);
  const auto bad = std::ranges::find_if(scores, [](double score) {
    return score != Similarity::kUnknown && !(score >= 0 && score <= 1);
  });
  if (bad != scores.end())
    reader.fault("similarity.score holds {}, wanted 0 to 1, or {}", *bad, Similarity::kUnknown);
}

std::vector<Replacement> read_replacements(Reader& reader) {
  std::vector<Replacement> result;
  const std::vector<double> all = reader.values("replacements", {-1, kHomes + kNumbers});
  for (size_t i = 0; i + kHomes + kNumbers <= all.size(); i += kHomes + kNumbers) {
    const auto home = [&](size_t at) {
      return Home{static_cast<int32_t>(all[i + at]), static_cast<int32_t>(all[i + at + 1])};
    };
    result.push_back({home(0), home(2), home(4), all[i + 6], all[i + 7], all[i + 8], all[i + 9]});
  }
  return result;
}

std::vector<Home> read_donors(Reader& reader) {
  const std::vector<int32_t> numbers = reader.integers("donors", {-1, 2});
  std::vector<Home> donors;
  for (size_t i = 0; i + 1 < numbers.size(); i += 2) donors.push_back({numbers[i], numbers[i + 1]});
  return donors;
}

void read_calibration(Reader& reader, size_t layers, int64_t experts, Statistics& s) {
  s.eps = reader.value("eps");
  if (reader.has("donors")) s.donors = read_donors(reader);
  const bool corrected = reader.has(layer_name(0, "correction"));
  for (size_t layer = 0; layer < layers; ++layer) {
    s.slots.push_back(reader.integers(layer_name(layer, "slots")));
    const auto count = static_cast<int64_t>(s.slots.back().size());
    if (count < experts)
      reader.fault("layer {} has {} slots, wanted at least {}", layer, count, experts);
    const std::vector<int64_t> foreign = {std::max<int64_t>(0, count - experts)};
    s.beta.push_back(reader.values(layer_name(layer, "beta"), foreign));
    s.scale.push_back(reader.values(layer_name(layer, "scale"), foreign));
    if (corrected) s.correction.push_back(reader.values(layer_name(layer, "correction"), foreign));
  }
}

std::map<std::string, std::string> words_of(const Statistics& s) {
  std::map<std::string, std::string> words = {{"format", kFormat},
                                              {"fingerprint", s.fingerprint},
                                              {"tokens_name", s.tokens_name},
                                              {"tokens", std::to_string(s.tokens)}};
  if (!s.similarity.score.empty()) words["similarity"] = s.similarity.kind;
  return words;
}

}  // namespace

void write_statistics(const Statistics& statistics, const std::filesystem::path& file) {
  const Tensors tensors = tensors_of(statistics);
  const std::filesystem::path partial = partial_path(file);
  remove_tree(partial);
  write_safetensors(partial, tensors.views(), words_of(statistics));
  replace_file(partial, file, "statistics");
}

Statistics read_statistics(const std::filesystem::path& file) {
  Reader reader(file);
  const std::string format = reader.word("format");
  if (format != kFormat) {
    fail("statistics", "{}: format is {}, wanted '{}'; is it a file of moue measure?",
         printable(file.string(), 400), in_quotes(format), kFormat);
  }
  Statistics s;
  s.fingerprint = reader.word("fingerprint");
  s.tokens_name = reader.word("tokens_name");
  s.tokens = reader.count("tokens");
  s.loss = reader.value("loss");
  s.margin = reader.values("margin", {-1});
  const size_t layers = s.margin.size();
  const std::vector<double> load = reader.values("load", {static_cast<int64_t>(layers), -1});
  s.load = rows_of(load, load.empty() ? 0 : layers);
  s.entropy = reader.values("entropy", {static_cast<int64_t>(layers)});
  s.output_rms = reader.values("output_rms", {static_cast<int64_t>(layers)});
  check_load(s, reader);
  const size_t experts = s.load.empty() ? 0 : s.load[0].size();
  if (reader.has("similarity.score")) read_similarity(reader, layers, experts, s.similarity);
  if (reader.has("replacements")) s.replacements = read_replacements(reader);
  if (reader.has("eps")) read_calibration(reader, layers, static_cast<int64_t>(experts), s);
  reader.finish();
  return s;
}

}  // namespace moue
