// Conversion: what is asked of a source, checked; makes the job of each layout.
#include "convert/conversion.h"

#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>

#include "convert/checks.h"
#include "convert/expressible.h"
#include "core/text.h"
#include "family/cut.h"
#include "moue/error.h"

namespace moue {

namespace {

constexpr std::array<std::pair<std::string_view, Dtype>, 3> kDtypes = {
    {{"float32", Dtype::F32}, {"bfloat16", Dtype::BF16}, {"float16", Dtype::F16}}};

Dtype dtype_named(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& [known, dtype] : kDtypes) {
    if (known == name) return dtype;
    names.emplace_back(known);
  }
  fail("convert", "no dtype {}; known: {}", in_quotes(name), join(names));
}

// The config's own word for the type of its weights, where it has one.
Config with_dtype(const Config& config, const std::string& name) {
  Config::Json json = config.json();
  for (const char* key : {"dtype", "torch_dtype"}) {
    if (json.contains(key)) json[key] = name;
  }
  return Config(std::move(json), config.origin());
}

std::pair<int64_t, int64_t> range_of(const std::string& text, int64_t layers) {
  int64_t first = -1, last = -1;
  const char* const end = text.data() + text.size();
  const auto head = std::from_chars(text.data(), end, first);
  if (head.ec == std::errc() && head.ptr != end && *head.ptr == ':') {
    const auto tail = std::from_chars(head.ptr + 1, end, last);
    if (tail.ec == std::errc() && tail.ptr == end && 0 <= first && first < last && last <= layers)
      return {first, last};
  }
  fail("convert", "layers is {}, wanted FIRST:LAST with 0 <= FIRST < LAST <= {}", in_quotes(text),
       layers);
}

bool same_bytes(const Checkpoint& source, const TensorInfo& a, const TensorInfo& b) {
  constexpr uint64_t kPiece = uint64_t{1} << 20;
  if (a.bytes != b.bytes || a.dtype != b.dtype) return false;
  std::vector<std::byte> left, right;
  for (uint64_t from = 0; from < a.bytes; from += left.size()) {
    left.resize(std::min(kPiece, a.bytes - from));
    right.resize(left.size());
    source.read(a, from, left);
    source.read(b, from, right);
    if (std::memcmp(left.data(), right.data(), left.size()) != 0) return false;
  }
  return true;
}

}  // namespace

Conversion::Conversion(const Checkpoint& source, const Plan* plan, const Statistics* statistics,
                       const ConvertOptions& options)
    : source_(source),
      plan_(plan),
      statistics_(statistics),
      options_(options),
      is_moue_(is_moue(source.config())),
      family_(family_of(source.config())),
      spec_(family_.spec(source.config())),
      claims_(claim(source, family_)) {
  read_options();
  if (is_moue_) {
    pool_ = read_pool(source_.config());
    check_pool_fits(*pool_, spec_, source_);
  }
  if (plan_ == nullptr) return;
  check_plan(source_, family_, spec_, *plan_);
  if (statistics_ != nullptr) check_statistics(*statistics_, *plan_, spec_);
  pool_ = plan_->pool;
  pool_->calibrated = statistics_ != nullptr;
}

void Conversion::read_options() {
  if (plan_ != nullptr) refuse_plan();
  if (!options_.base_model.empty()) check_base_model(options_.base_model);
  const bool is_cut = !options_.layers.empty();
  if (!options_.dtype.empty()) dtype_ = dtype_named(options_.dtype);
  layout_ = options_.layout.empty() ? (is_cut ? Layout::Export : Layout::Linked)
                                    : layout_of(options_.layout);
  if (is_cut && is_moue_) {
    fail("convert",
         "{} is a MoUE, whose layers share experts, wanted an ordinary model to cut; "
         "cut the model it was made from, then convert that",
         source_.directory().string());
  }
  if (is_cut) {
    const auto [first, last] = range_of(options_.layers, spec_.layers);
    cut_ = Range{first, last};
  }
  refuse_layout(layout_);
}

// A plan makes a MoUE of an ordinary model, and has nothing to say to anything else.
void Conversion::refuse_plan() const {
  const std::string directory = source_.directory().string();
  if (is_moue_) {
    fail("convert",
         "{} is a MoUE already; convert the model it was made from, or leave the plan out to write "
         "this one in another layout",
         directory);
  }
  if (!options_.layers.empty()) {
    fail("convert",
         "layers = {} cuts {} into an ordinary model, to which no plan applies; cut "
         "first, then plan and convert the result",
         in_quotes(options_.layers), directory);
  }
}

void Conversion::refuse_layout(Layout layout) const {
  const std::string directory = source_.directory().string();
  if (layout == Layout::Linked && dtype_) {
    fail("convert", "dtype is '{}', but layout 'linked' keeps the source's bytes; take packed{}",
         options_.dtype, plan_ ? "" : " or export");
  }
  if (layout == Layout::Export && plan_ != nullptr) {
    fail("convert",
         "layout 'export' writes an ordinary model, and {} is one already; leave the "
         "plan out, or take linked or packed",
         directory);
  }
  if (layout != Layout::Export && plan_ == nullptr && !is_moue_) {
    fail("convert", "layout '{}' of {}, an ordinary model, would be a MoUE, wanted a plan{}",
         to_string(layout), directory,
         cut_ ? "; a cut is written as export, then planned and converted" : "; make one");
  }
}

Job Conversion::job(Layout layout) const {
  refuse_layout(layout);
  Job job;
  job.content = content(layout);
  job.layout = layout;
  job.shards = shards_for(*job.content, layout, options_.shard_size);
  job.config = config(layout);
  add_card(job);
  job.hash = options_.hash;
  job.stream.threads = options_.threads;
  job.stream.memory = options_.memory;
  job.stream.scratch = job.content->scratch_bytes();
  return job;
}

// What a MoUE says of itself beside its weights.
void Conversion::add_card(Job& job) const {
  const bool to_moue = pool_ && job.layout != Layout::Export;
  job.others = carried_files(source_, to_moue);
  if (!to_moue) return;
  if (plan_ == nullptr) {
    job.texts[kCard] = renewed_card(source_, spec_, *pool_, options_.dtype);
    return;
  }
  CardFacts facts = card_facts(source_, *pool_, spec_);
  facts.base_model = options_.base_model;
  facts.cast = options_.dtype;
  for (const Part& part : job.content->parts()) {
    if (part.from == Part::From::Source) continue;
    facts.new_tensors += 1;
    facts.new_bytes += part.bytes;
  }
  job.texts[kCard] = card_text(facts);
  job.texts[kCardPicture] = picture_of(*plan_);
}

std::shared_ptr<Content> Conversion::content(Layout layout) const {
  if (layout == Layout::Linked && plan_ != nullptr) check_linkable(source_);
  if (layout == Layout::Export && is_moue_) {
    const std::vector<std::string> layers = inexpressible_layers(source_, *pool_);
    if (!layers.empty()) {
      fail("convert",
           "{} of {} compute what an ordinary layer cannot: {}; close them, or keep the model a "
           "MoUE (layout packed)",
           counted(layers.size(), "layer"), source_.directory().string(), join(layers, "; "));
    }
  }
  auto content = std::make_shared<Content>(source_, claims_, dtype_);
  if (layout != Layout::Linked) add_source(*content, layout);
  if (plan_ == nullptr) return content;
  content->add_new_experts(new_tensors(claims_, *pool_, spec_));
  content->add_values(pool_tensors(*pool_, spec_),
                      closed_values(source_, claims_, *pool_, spec_, statistics_,
                                    static_cast<uint64_t>(options_.seed)));
  return content;
}

void Conversion::add_source(Content& content, Layout layout) const {
  for (const uint32_t tensor : reading_order(source_, claims_)) {
    const TensorInfo& info = source_.tensors()[tensor];
    const Claim& claim = claim_of(source_, claims_, tensor);
    if (layout == Layout::Export && claim.row == nullptr) {
      content.drop(tensor, "of the pool");
    } else if (const std::string twin = tied_with(tensor); !twin.empty()) {
      content.drop(tensor, "tied, the same as " + twin);
    } else if (!cut_ || claim.layer < 0) {
      content.add_source(tensor);
    } else if (claim.layer < cut_->first || claim.layer >= cut_->last) {
      content.drop(tensor, fmt::format("layer {} was cut off", claim.layer));
    } else {
      content.add_source(tensor, moved_name(info.name, claim, claim.layer - cut_->first));
    }
  }
}

// The tensor that a tied head repeats; "" for all other tensors.
std::string Conversion::tied_with(uint32_t tensor) const {
  const TensorInfo* head = claims_.find(Role::OutputHead);
  if (!spec_.tied_head || head != &source_.tensors()[tensor]) return "";
  const TensorInfo& embedding = claims_.at(Role::Embedding);
  return same_bytes(source_, *head, embedding) ? embedding.name : "";
}

Config Conversion::config(Layout layout) const {
  Config config = source_.config();
  if (cut_) config = cut_config(config, family_, cut_->first, cut_->last);
  if (dtype_) config = with_dtype(config, options_.dtype);
  if (plan_ != nullptr) return with_pool(config, *pool_);
  return is_moue_ && layout == Layout::Export ? without_pool(config) : config;
}

}  // namespace moue
