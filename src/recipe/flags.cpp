// The command line: verbs, arguments and flags made from the knobs, read with CLI11.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <deque>

#include "core/files.h"
#include "core/text.h"
#include "moue/error.h"
#include "moue/inspect.h"
#include "moue/version.h"
#include "recipe/knob.h"

namespace moue {
namespace {

struct Argument {
  const char* name;
  const char* key;
};

struct Verb {
  const char* name;
  const char* summary;
  std::vector<Argument> arguments;
  const char* examples;
};

const std::vector<Verb>& verbs() {
  static const std::vector<Verb> all = {
      {"inspect",
       "what a checkpoint holds: family, sizes, parameters, layers, shards, faults",
       {{"MODEL", "source"}},
       "  moue inspect models/mixtral\n"
       "  moue inspect models/mixtral --json\n"
       "  moue inspect --families\n"},
      {"measure",
       "run a model on tokens: loads, margins, output scales, calibration",
       {{"MODEL", "source"}},
       "  moue measure models/mixtral --tokens text.u16\n"
       "  moue measure models/mixtral --tokens text.u16 --plan plan.json --out "
       "statistics.safetensors\n"
       "  moue measure models/mixtral --tokens text.u16 --reach 2 --replace 50 --json\n"},
      {"plan",
       "decide which experts each layer shall share; writes plan.json and its picture",
       {{"MODEL", "source"}},
       "  moue plan models/mixtral\n"
       "  moue plan models/mixtral --topology half_staggered --group 2 --out plan.json\n"
       "  moue plan models/mixtral --topology similarity --window 16 --reach 2\n"
       "  moue plan models/mixtral --mode expand --experts 32 --donors weight --topology aligned\n"
       "  moue plan models/mixtral --compare aligned,sliding,half_staggered\n"},
      {"convert",
       "write the upgraded checkpoint, or a model in another layout; the source is only read",
       {{"MODEL", "source"}},
       "  moue convert models/mixtral --out models/mixtral-moue\n"
       "  moue convert models/mixtral --plan plan.json --statistics statistics.safetensors --out "
       "DIR\n"
       "  moue convert models/mixtral-moue --layout packed --shard_size 2GiB --out DIR\n"
       "  moue convert models/mixtral-moue --layout export --dtype bfloat16 --out DIR\n"
       "  moue convert models/mixtral --layers 0:4 --out models/mixtral-4\n"
       "  moue convert models/mixtral --layout packed --memory 256MiB --dry_run --out DIR\n"},
      {"train",
       "open the pool and go on training; with --control train the source itself; with --init "
       "begin "
       "from scratch",
       {{"MODEL", "train.model"}},
       "  moue train models/mixtral-moue --tokens more.u16 --held_out held_out.u16 --out "
       "runs/a/train\n"
       "  moue train models/mixtral --control --tokens more.u16 --held_out held_out.u16 --out "
       "runs/a/control\n"
       "  moue train models/mixtral-moue --tokens more.u16 --out DIR --dtype bfloat16 --moments "
       "bfloat16 --master none\n"
       "  moue train models/mixtral-moue --tokens more.u16 --out DIR --distill 0.5 --distill_from "
       "models/mixtral\n"
       "  moue train --recipe recipes/tiny_mixtral.toml --resume --save_every 200 --keep_last 2\n"
       "  moue train --init config.json --tokens text.u16 --out runs/b/train\n"
       "  moue train --init config.json --control --tokens text.u16 --out runs/b/control\n"
       "  moue train --report runs/a/train --compare runs/a/control\n"},
      {"validate",
       "prove what is equal, measure what is not: gates G0 to G3",
       {{"ORIGINAL", "source"}, {"RESULT", "validate.result"}},
       "  moue validate models/mixtral models/mixtral-moue\n"
       "  moue validate --manifest models/mixtral-moue\n"
       "  moue validate models/mixtral runs/a/train/step-000300 --tokens held_out.u16 --html "
       "report.html\n"},
  };
  return all;
}

/// A flag or argument and the words the command line gave it.
struct Heard {
  const Knob* knob = nullptr;
  std::string name;  ///< as the user spells it
  CLI::Option* option = nullptr;
  std::vector<std::string> words;
  bool set = false;  ///< flags without a value
};

struct CommandLine {
  CLI::App app{"moue upgrades mixture-of-experts checkpoints to pools of universal experts",
               "moue"};
  std::deque<Heard> heard;  // CLI11 keeps pointers into it
  std::string recipe_file;
  bool families = false;
  bool reference = false;
  bool families_reference = false;
};

std::string help_of(const Knob& knob) {
  const std::string range = knob.choices.empty() ? std::string() : range_text(knob);
  return range.empty() ? knob.help : fmt::format("{}: {}", knob.help, range);
}

std::string value_hint(const Knob& knob) {
  const std::string value = toml_text(knob, Recipe());
  if (!value.empty() && value != "\"\"") return fmt::format("{} = {}", type_text(knob), value);
  return knob.unset.empty() ? type_text(knob) : fmt::format("{} ({})", type_text(knob), knob.unset);
}

constexpr int kMostRepeats = 1000;  // of a flag that takes a list, one element each time

void add_flag(CommandLine& line, CLI::App& sub, const Knob& knob) {
  Heard& heard = line.heard.emplace_back();
  heard.knob = &knob;
  heard.name = fmt::format("--{}", knob.flag());
  if (type_text(knob).empty()) {
    heard.option = sub.add_flag(heard.name, heard.set, help_of(knob));
    return;
  }
  heard.option =
      sub.add_option(heard.name, heard.words, help_of(knob))->option_text(value_hint(knob));
  const auto words = static_cast<int>(std::max<size_t>(knob.length, 1));
  const bool repeats = type_text(knob) == "TEXT";
  heard.option->expected(knob.bare.empty() ? words : 0, repeats ? kMostRepeats : words);
  heard.option->allow_extra_args(false);
}

void add_argument(CommandLine& line, CLI::App& sub, const Argument& argument) {
  Heard& heard = line.heard.emplace_back();
  heard.knob = find_knob(argument.key);
  heard.name = argument.name;
  heard.option = sub.add_option(argument.name, heard.words, heard.knob->help);
  heard.option->option_text(" ")->expected(1)->allow_extra_args(false);
}

void add_verb(CommandLine& line, const Verb& verb) {
  CLI::App& sub = *line.app.add_subcommand(verb.name, verb.summary);
  sub.group("Verbs");
  sub.footer(fmt::format("OUT is the directory that the recipe names with out =.\n\nExamples:\n{}",
                         verb.examples));
  sub.allow_extras();  // so that all unknown flags can be named at once
  for (const Argument& argument : verb.arguments) add_argument(line, sub, argument);
  sub.add_option("--recipe", line.recipe_file, "recipe file; flags win over it")
      ->option_text("FILE.toml");
  for (const Knob& knob : knobs()) {
    const bool is_argument =
        std::any_of(verb.arguments.begin(), verb.arguments.end(),
                    [&](const Argument& argument) { return knob.key == argument.key; });
    const std::string_view first = std::string_view(knob.key).substr(0, knob.key.find('.'));
    const bool everywhere = knob.key == "json" || knob.key == "quiet";
    if (everywhere || (first == verb.name && !is_argument && !knob.in_row))
      add_flag(line, sub, knob);
  }
}

void build(CommandLine& line) {
  line.app.set_version_flag("--version", std::string("moue ") + kVersion);
  line.app.add_flag("--recipe_reference", line.reference)->group("");
  line.app.add_flag("--families_reference", line.families_reference)->group("");
  line.app.require_subcommand(0, 1);
  line.app.allow_extras();
  line.app.get_formatter()->column_width(44);
  line.app.get_formatter()->label("SUBCOMMAND", "VERB");
  line.app.footer(
      "moue VERB --help shows a verb's flags and examples.\n"
      "Exit codes: 0 done; 1 validation found a difference; 2 a fault you can mend; 3 a fault of "
      "ours;\n"
      "4 interrupted, what is complete is kept and the same command goes on.");
  for (const Verb& verb : verbs()) add_verb(line, verb);
  line.app.get_subcommand("inspect")->add_flag("--families", line.families,
                                               "what each family supports; no MODEL is read");
}

std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

/// Words CLI11 could not place: unknown flags, a verb that does not exist, arguments too many.
void refuse_extras(const CLI::App& app, const std::string& verb) {
  std::vector<std::string> known = flag_names(app), faults;
  if (verb.empty()) {
    for (const Verb& each : verbs()) known.emplace_back(each.name);
  }
  for (const std::string& word : app.remaining()) {
    const bool is_flag = word.starts_with("-");
    const auto hint =
        is_flag || verb.empty() ? nearest(word.substr(0, word.find('=')), known) : std::nullopt;
    const char* kind = is_flag ? "flag" : verb.empty() ? "verb" : "further argument";
    faults.push_back(hint ? fmt::format("no {} {}, nearest is '{}'", kind, in_quotes(word), *hint)
                          : fmt::format("no {} {}", kind, in_quotes(word)));
    // What follows an unknown flag or verb is most likely its value.
    if (verb.empty()) break;
  }
  if (faults.empty()) return;
  fail("recipe", "moue{}{}: {}; see moue{}{} --help", verb.empty() ? "" : " ", verb,
       fmt::join(faults, "; "), verb.empty() ? "" : " ", verb);
}

void apply_flags(Recipe& recipe, const std::deque<Heard>& heard, const CLI::App& app) {
  std::vector<std::string> faults;
  for (const Heard& flag : heard) {
    // Each verb has its own options; those of the others were never counted.
    if (flag.option->count() == 0) continue;
    const bool is_bare = flag.words.empty() || flag.words.front().empty();
    const Setting setting = is_bare && !flag.knob->bare.empty() ? Setting(flag.knob->bare)
                            : flag.words.empty()                ? Setting(flag.set)
                                                 : setting_of(*flag.knob, flag.words);
    const std::string fault = assign(*flag.knob, recipe, setting);
    if (!fault.empty()) faults.push_back(fmt::format("{} {}", flag.name, fault));
  }
  if (!faults.empty()) fail("recipe", "moue {}: {}", app.get_name(), fmt::join(faults, "; "));
}

/// Parses; returns what was asked to be shown instead of a run, or "".
std::string parse(CommandLine& line, int argc, const char* const* argv) {
  try {
    line.app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    const auto chosen = line.app.get_subcommands();
    return chosen.empty() ? line.app.help() : chosen.front()->help(line.app.get_name());
  } catch (const CLI::CallForVersion& version) {
    return std::string(version.what()) + "\n";
  } catch (const CLI::ParseError& error) {
    std::string what = error.what();
    std::replace(what.begin(), what.end(), '\n', ' ');
    fail("recipe", "command line: {}; see moue --help", what);
  }
  if (line.families_reference) return families_reference();
  return line.reference ? recipe_reference() : std::string();
}

}  // namespace

Recipe read_recipe(int argc, const char* const* argv) {
  constexpr uint64_t kLargestFile = 1 << 20;
  CommandLine line;
  build(line);
  Recipe recipe;
  recipe.message = parse(line, argc, argv);
  if (!recipe.message.empty()) return recipe;
  refuse_extras(line.app, "");
  const auto chosen = line.app.get_subcommands();
  if (chosen.empty())
    fail("recipe",
         "no verb, wanted inspect, measure, plan, convert, train or validate; see moue --help");
  const CLI::App& verb = *chosen.front();
  refuse_extras(verb, verb.get_name());
  if (!line.recipe_file.empty())
    apply_file(recipe, read_whole_file(line.recipe_file, "recipe", kLargestFile), line.recipe_file);
  apply_flags(recipe, line.heard, verb);
  recipe.verb = verb.get_name();
  recipe.families = line.families;
  recipe.warnings = settings_without_effect(with_paths(recipe));
  if (recipe.families && !recipe.source.empty())
    recipe.warnings.push_back(
        fmt::format("--families reads no model: {} has no effect", recipe.source.string()));
  return recipe;
}

}  // namespace moue
