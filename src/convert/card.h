// The model card of a result: README.md as Hugging Face reads it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "moue/checkpoint.h"
#include "moue/pool.h"
#include "moue/report.h"

namespace moue {

inline constexpr const char* kCard = "README.md";
inline constexpr const char* kParentCard = "README.parent.md";  ///< the source's own, as it was
inline constexpr const char* kCardPicture = "plan.svg";

/// What a card tells. All of it follows from the source and the recipe: no paths, no times.
struct CardFacts {
  const Pool& pool;
  const ModelSpec& spec;
  std::string family = {};
  std::string base_model = {};    ///< the parent's name on the Hub; "" = not known
  std::string parent_card = {};   ///< text of the source's README.md; "" = it has none
  std::string licence_file = {};  ///< "LICENSE"; "" = the source has none
  bool has_picture = false;       ///< plan.svg lies beside it
  std::string cast = {};        ///< "bfloat16": what weights were rounded to; "" = as in the source
  uint64_t source_tensors = 0;  ///< of the ordinary model
  uint64_t source_bytes = 0;
  uint64_t new_tensors = 0;  ///< of the pool
  uint64_t new_bytes = 0;
};

/// A file that is neither weights nor config, and its name in the result.
struct Carried {
  std::string from, to;
};
/// The source's own card makes way for the result's and comes back with an ordinary model. Throws
/// Error where an ordinary source has files of the names that a card needs.
std::vector<Carried> carried_files(const Checkpoint& source, bool to_moue);

/// What a card tells of a MoUE made of `source`, or of the MoUE that it is. Borrows pool and spec.
CardFacts card_facts(const Checkpoint& source, const Pool& pool, const ModelSpec& spec);

/// The card of a MoUE that becomes another one (its pool now, its cast): as it is where somebody
/// has written into it.
std::string renewed_card(const Checkpoint& moue, const ModelSpec& spec, const Pool& now,
                         const std::string& cast);

/// Front matter with the parent's licence and language, what the model is, its pool, what became of
/// the source's tensors, how to check it and how to go back.
std::string card_text(const CardFacts& facts);

/// Throws Error where it is no name as the Hub has them: "org/model".
void check_base_model(const std::string& name);

/// Blocks of the parent's YAML front matter that are carried over, each with its key and the lines
/// that belong to it: license, license_name, license_link, language, pipeline_tag.
std::vector<std::string> carried_front_matter(std::string_view card);

}  // namespace moue
