// Writes the model card; the parent's front matter is read line by line, never trusted as YAML.
#include "convert/card.h"

#include "core/text.h"
#include "pool/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

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

std::string_view state_text(PoolState state) {
  switch (state) {
    case PoolState::Closed:
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
      state_text(facts.pool.state));
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
      "| of the source, {} | {} | {} |\n| new: the pool's | {} | {} |\n\n"
      "`moue-manifest.json` says of every file its size and SHA-256, of every tensor where it "
      "went, "
      "and with which recipe.\n\n"
      "    moue validate --manifest DIR                  # these files are what was written\n"
      "    moue validate SOURCE DIR                      # it is what it says, against its "
      "source\n",
      facts.weights, facts.source_tensors, bytes_text(facts.source_bytes), facts.new_tensors,
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
  std::string text = known ? "The licence is the source's.\n"
                           : "The source's card names no licence: ask its owner before publishing "
                             "this model.\n";
  if (!facts.parent_card.empty()) text += fmt::format("Its own card is `{}`.\n", kParentCard);
  return "## Licence\n\n" + text;
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

std::string card_text(const CardFacts& facts) {
  return matter_text(facts) + heading(facts) + pool_text(facts) + ledger_text(facts) +
         way_back(facts) + licence_text(facts);
}

}  // namespace moue
