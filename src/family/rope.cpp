// Reads the rotary embedding of a config.json, old words or new.
#include "core/text.h"
#include "moue/converter.h"
#include "moue/error.h"

#include <array>
#include <cmath>

namespace moue::converters {

namespace {

constexpr std::array<std::pair<std::string_view, RopeKind>, 5> kKinds = {
    {{"default", RopeKind::Default},
     {"linear", RopeKind::Linear},
     {"llama3", RopeKind::Llama3},
     {"longrope", RopeKind::Long},
     {"yarn", RopeKind::Yarn}}};

// The object that transformers 4 calls rope_scaling and transformers 5 rope_parameters.
class Table {
 public:
  explicit Table(const Config& config) : config_(config) {}

  /// The key in the object that has it.
  std::string key(std::string_view name) const {
    const std::string old = fmt::format("rope_scaling.{}", name);
    return config_.has(old) ? old : fmt::format("rope_parameters.{}", name);
  }
  bool has(std::string_view name) const { return config_.has(key(name)); }
  double real(std::string_view name, double fallback) const {
    return has(name) ? config_.real(key(name)) : fallback;
  }
  double positive(std::string_view name, double fallback) const {
    const double value = real(name, fallback);
    if (value > 0 && value < 1e12) return value;
    fail("family", "{}: {} is {}, wanted more than 0", config_.origin(), key(name), value);
  }
  bool boolean(std::string_view name, bool fallback) const {
    return config_.boolean(key(name), fallback);
  }
  /// One factor for each pair of channels.
  std::vector<double> factors(std::string_view name, int64_t count) const {
    std::vector<double> values = config_.reals(key(name));
    if (static_cast<int64_t>(values.size()) != count) {
      fail("family", "{}: {} has {} entries, wanted {}", config_.origin(), key(name), values.size(),
           count);
    }
    for (const double value : values) {
      if (value > 0) continue;
      fail("family", "{}: {} has the entry {}, wanted more than 0", config_.origin(), key(name),
           value);
    }
    return values;
  }

  RopeKind kind() const {
    const std::string name_key = key(has("rope_type") ? "rope_type" : "type");
    const std::string name = config_.string(name_key, "default");
    std::string known;
    for (const auto& [word, kind] : kKinds) {
      if (word == name) return kind;
      known += fmt::format("{}'{}'", known.empty() ? "" : ", ", word);
    }
    fail("family", "{}: {} is '{}', wanted one of {}", config_.origin(), name_key, printable(name),
         known);
  }

  int64_t original_length() const {
    const Config::Keys keys = {"original_max_position_embeddings",
                               "rope_scaling.original_max_position_embeddings",
                               "rope_parameters.original_max_position_embeddings",
                               "max_position_embeddings", "max_seq_len"};
    return size(config_, keys);
  }
  /// How far beyond its first length the model reaches.
  double factor(int64_t original_length) const {
    if (has("factor")) return positive("factor", 1);
    return static_cast<double>(
               size(config_, {"max_position_embeddings", "max_seq_len"}, original_length)) /
           static_cast<double>(original_length);
  }

  double theta(double fallback) const {
    // DBRX keeps it in attn_config, and transformers 5 writes its own default beside that.
    const double value =
        config_.real({"attn_config.rope_theta", key("rope_theta"), "rope_theta"}, fallback);
    if (value >= 1 && value <= 1e12) return value;
    fail("family", "{}: rope_theta is {}, wanted 1 to 1e12", config_.origin(), value);
  }

  void refuse_per_layer() const {
    for (std::string_view type : {"full_attention", "sliding_attention", "linear_attention"}) {
      if (!has(type)) continue;
      fail("family", "{}: {} is an object, wanted one rotary embedding for all layers",
           config_.origin(), key(type));
    }
  }

 private:
  const Config& config_;
};

double mscale(double factor, double weight) {
  return factor <= 1 ? 1 : 0.1 * weight * std::log(factor) + 1;
}

double yarn_attention(const Table& table, double factor) {
  const double weight = table.real("mscale", 0), all = table.real("mscale_all_dim", 0);
  if (weight != 0 && all != 0) return mscale(factor, weight) / mscale(factor, all);
  return mscale(factor, 1);
}

double long_attention(double factor, int64_t original_length) {
  return factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(original_length));
}

void read_scaled(const Table& table, RopeSpec& r) {
  if (r.kind != RopeKind::Linear) r.original_length = table.original_length();
  r.factor =
      r.kind == RopeKind::Linear ? table.positive("factor", 1) : table.factor(r.original_length);
  if (r.kind == RopeKind::Yarn) {
    r.attention_factor = table.positive("attention_factor", yarn_attention(table, r.factor));
    r.beta_fast = table.positive("beta_fast", 32);
    r.beta_slow = table.positive("beta_slow", 1);
    r.truncate = table.boolean("truncate", true);
  } else if (r.kind == RopeKind::Long) {
    r.attention_factor = r.long_attention_factor =
        table.positive("attention_factor", long_attention(r.factor, r.original_length));
    r.short_factors = table.factors("short_factor", r.width / 2);
    r.long_factors = table.factors("long_factor", r.width / 2);
  } else if (r.kind == RopeKind::Llama3) {
    r.low_frequency = table.positive("low_freq_factor", 1);
    r.high_frequency = table.positive("high_freq_factor", 4);
  }
}

RopeSpec of_width(const Config& config, double default_theta, int64_t head_width, int64_t width) {
  const Table table(config);
  table.refuse_per_layer();
  RopeSpec r{.kind = table.kind(), .theta = table.theta(default_theta), .width = width};
  if (width < 2 || width > head_width || width % 2 != 0) {
    fail("family",
         "{}: {} of {} channels of a head (head_dim) are rotated, wanted an even number of them",
         config.origin(), width, head_width);
  }
  if (r.kind != RopeKind::Default) {
    read_scaled(table, r);
  } else if (table.real("factor", 1) != 1) {
    fail("family", "{}: {} is {} without a rope_type, wanted 1", config.origin(),
         table.key("factor"), table.real("factor", 1));
  }
  return r;
}

}  // namespace

RopeSpec rope(const Config& config, double default_theta, int64_t head_width) {
  for (std::string_view key : {"partial_rotary_factor", "rope_parameters.partial_rotary_factor",
                               "rope_scaling.partial_rotary_factor"}) {
    must_be(config, key, 1.0);
  }
  return of_width(config, default_theta, head_width, head_width);
}

RopeSpec partial_rope(const Config& config, double default_theta, int64_t head_width,
                      double default_part) {
  const double part =
      config.real({"rope_scaling.partial_rotary_factor", "rope_parameters.partial_rotary_factor",
                   "partial_rotary_factor"},
                  default_part);
  if (!(part > 0 && part <= 1)) {
    fail("family", "{}: partial_rotary_factor is {}, wanted more than 0 and at most 1",
         config.origin(), part);
  }
  const auto width = static_cast<int64_t>(static_cast<double>(head_width) * part);
  return of_width(config, default_theta, head_width, size(config, {"rotary_dim"}, width));
}

double latent_scale(const Config& config, const RopeSpec& rope) {
  const double all = Table(config).real("mscale_all_dim", 0);
  if (rope.kind == RopeKind::Default || all == 0) return 1;
  return std::pow(mscale(rope.factor, all), 2);
}

}  // namespace moue::converters
