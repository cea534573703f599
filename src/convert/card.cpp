// Writes the model card; the parent's front matter is read line by line, never trusted as YAML.
#include "convert/card.h"

#include "core/files.h"
#include "core/text.h"
#include "moue/error.h"
#include "moue/family.h"
#include "pool/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

namespace moue {

namespace {

constexpr std::array<std::string_view, 5> kCarried = {"license", "license_name", "license_link",
                                                      "language", "pipeline_tag"};
constexpr size_t kMostLines = 200, kMostLine = 500;  // of front matter, of a line

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

// The lines between the first "---" and the next; none where the text does not start so.
std::vector<std::string_view> front_matter(std::string_view card) {
  std::vector<std::string_view> lines = lines_of(card);
  if (lines.empty() || lines[0] != "---") return {};
  const auto end = std::find(lines.begin() + 1, lines.end(), "---");
  if (end == lines.end() || end - lines.begin() > static_cast<ptrdiff_t>(kMostLines)) return {};
  return {lines.begin() + 1, end};
}

bool is_plain_line(std::string_view line) {
  return line.size() <= kMostLine && is_utf8(line) &&
         std::ranges::none_of(line, [](char c) { return static_cast<unsigned char>(c) < ' '; });
}

// "license" of "license: mit"; nothing for a line that belongs to the key above it.
std::string_view key_of(std::string_view line) {
  if (line.empty() || line[0] == ' ' || line[0] == '-' || line[0] == '#') return {};
  return line.substr(0, line.find(':'));
}

std::string matter_text(const CardFacts& facts) {
  std::string text = "---\n";
  for (const std::string& block : carried_front_matter(facts.parent_card)) text += block;
  if (!facts.base_model.empty()) text += "base_model: " + facts.base_model + "\n";
  return text + "tags:\n- mixture-of-experts\n- moue\n---\n\n";
}

std::string state_text(const CardFacts& facts) {
  switch (facts.pool.state) {
    case PoolState::Closed:
      if (!facts.cast.empty()) {
        return fmt::format(
            "It is closed: no layer uses another's experts yet. Its weights are its source's, "
            "rounded to {}.",
            facts.cast);
      }
      return "It is closed: no layer uses another's experts yet, and it computes what its source "
             "computes, bit for bit.";
    case PoolState::Opened:
      return "It is opened: layers may choose experts of other layers.";
    case PoolState::Trained:
      return "It is trained: layers choose experts of other layers, and its weights have moved.";
    case PoolState::Relocked:
      return "It is relocked: layers that no longer use other layers' experts are ordinary again.";
  }
  return "";
}

std::string heading(const CardFacts& facts) {
  const std::string parent =
      facts.base_model.empty() ? "a " + facts.family + " model" : facts.base_model;
  return fmt::format(
      "# A mixture of universal experts made of {}\n\n"
      "The routed experts of all {} MoE layers form one pool of {}; every layer has its own {} and "
      "lists experts of other layers besides. {}\n\n",
      parent, facts.pool.num_moe_layers(), facts.pool.num_physical(), facts.pool.experts_per_layer,
      state_text(facts));
}

std::string pool_text(const CardFacts& facts) {
  std::string text = "## The pool\n\n";
  if (facts.has_picture) text += fmt::format("![Who sees whom]({})\n\n", kCardPicture);
  text += "| | |\n|---|---|\n";
  for (const Fact& fact : pool_facts(facts.pool)) {
    text += fmt::format("| {} | {}{}{} |\n", fact.key, value_text(fact.value),
                        fact.unit.empty() ? "" : " ", fact.unit);
  }
  return text + fmt::format("| experts_per_token | {} |\n\n", facts.spec.experts_per_token);
}

std::string ledger_text(const CardFacts& facts) {
  return fmt::format(
      "## What became of the source\n\n"
      "| | tensors | bytes |\n|---|---|---|\n"
      "| the source's | {} | {} |\n| new: the pool's | {} | {} |\n\n"
      "`moue-manifest.json` says of every file its size and SHA-256, of every tensor where it "
      "went, "
      "and with which recipe.\n\n"
      "    moue validate --manifest DIR                  # these files are what was written\n"
      "    moue validate SOURCE DIR                      # it is what it says, against its "
      "source\n",
      facts.source_tensors, bytes_text(facts.source_bytes), facts.new_tensors,
      bytes_text(facts.new_bytes));
}

std::string way_back(const CardFacts& facts) {
  if (facts.pool.state == PoolState::Trained || facts.pool.state == PoolState::Opened) return "\n";
  return "    moue convert DIR --layout export --out OUT    # back to the family's own format\n\n";
}

std::string licence_text(const CardFacts& facts) {
  const std::vector<std::string> blocks = carried_front_matter(facts.parent_card);
  const bool known = std::ranges::any_of(
      blocks, [](const std::string& block) { return block.starts_with("license"); });
  std::string text = "The source names no licence: ask its owner before publishing this model.\n";
  if (known) text = "The licence is the source's.\n";
  if (!facts.licence_file.empty())
    text = fmt::format("The licence is the source's: `{}`.\n", facts.licence_file);
  if (!facts.parent_card.empty()) text += fmt::format("Its own card is `{}`.\n", kParentCard);
  return "## Licence\n\n" + text;
}

bool has_file(const Checkpoint& source, std::string_view name) {
  return std::ranges::find(source.other_files(), name) != source.other_files().end();
}

// "" where there is none. What is longer than any card is left unread: nothing is carried from it.
std::string card_in(const Checkpoint& source, const char* name) {
  constexpr uint64_t kMost = 1'000'000;
  if (!has_file(source, name)) return "";
  const InputFile file(source.directory() / name, "convert");
  std::string text(std::min(file.size(), kMost), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

std::string base_model_of(std::string_view card) {
  constexpr std::string_view kKey = "base_model: ";
  for (const std::string_view line : front_matter(card)) {
    if (line.starts_with(kKey) && is_plain_line(line)) return std::string(line.substr(kKey.size()));
  }
  return "";
}

}  // namespace

std::vector<std::string> carried_front_matter(std::string_view card) {
  std::vector<std::string> blocks;
  bool carry = false;
  for (const std::string_view line : front_matter(card)) {
    const std::string_view key = key_of(line);
    const bool starts = !key.empty();
    if (starts) carry = std::ranges::find(kCarried, key) != kCarried.end() && is_plain_line(line);
    if (!carry || !is_plain_line(line) || line.starts_with('#')) continue;
    if (starts) blocks.emplace_back();
    blocks.back() += std::string(line) + "\n";
  }
  return blocks;
}

std::vector<Carried> carried_files(const Checkpoint& source, bool to_moue) {
  const bool from_moue = is_moue(source.config());
  std::vector<Carried> carried;
  std::vector<std::string> taken;
  for (const std::string& name : source.other_files()) {
    const bool is_card = name == kCard, is_parent = name == kParentCard;
    const bool is_ours = is_parent || name == kCardPicture;
    if (from_moue && is_card) continue;
    if (from_moue && !to_moue && name == kCardPicture) continue;
    if (!from_moue && to_moue && is_ours) taken.push_back(name);
    std::string to = name;
    if (!from_moue && to_moue && is_card) to = kParentCard;
    if (from_moue && !to_moue && is_parent) to = kCard;
    carried.push_back({name, std::move(to)});
  }
  if (!taken.empty()) {
    fail("convert", "{} has {}, whose name the result needs; rename it",
         source.directory().string(), join(taken));
  }
  return carried;
}

CardFacts card_facts(const Checkpoint& source, const Pool& pool, const ModelSpec& spec) {
  const bool is_made = is_moue(source.config());
  CardFacts facts{pool, spec};
  facts.family = family_of(source.config()).name;
  facts.parent_card = card_in(source, is_made ? kParentCard : kCard);
  facts.has_picture = !is_made || has_file(source, kCardPicture);
  for (const std::string& name : source.other_files()) {
    if (facts.licence_file.empty() && (name.starts_with("LICENSE") || name.starts_with("LICENCE")))
      facts.licence_file = name;
  }
  if (is_made) facts.base_model = base_model_of(card_in(source, kCard));
  for (const TensorInfo& tensor : source.tensors()) {
    const bool is_new = is_pool_tensor(tensor.name);
    (is_new ? facts.new_tensors : facts.source_tensors) += 1;
    (is_new ? facts.new_bytes : facts.source_bytes) += tensor.bytes;
  }
  return facts;
}

std::string renewed_card(const Checkpoint& moue, const ModelSpec& spec, const Pool& now,
                         const std::string& cast) {
  const Pool before = read_pool(moue.config());
  const std::string card = card_in(moue, kCard);
  if (!card.empty() && card != card_text(card_facts(moue, before, spec))) return card;
  CardFacts facts = card_facts(moue, now, spec);
  facts.cast = cast;
  return card_text(facts);
}

void check_base_model(const std::string& name) {
  const auto is_plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  };
  const size_t slash = name.find('/');
  const bool fits = slash != name.npos && slash > 0 && slash + 1 < name.size() &&
                    std::ranges::all_of(name.substr(0, slash), is_plain) &&
                    std::ranges::all_of(name.substr(slash + 1), is_plain);
  if (!fits) fail("convert", "base_model is {}, wanted a name like org/model", in_quotes(name));
}

std::string card_text(const CardFacts& facts) {
  return matter_text(facts) + heading(facts) + pool_text(facts) + ledger_text(facts) +
         way_back(facts) + licence_text(facts);
}

}  // namespace moue
