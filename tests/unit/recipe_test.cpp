// The five rules of recipes: strict keys, flags win, a fixed point, everything shown, one
// declaration per knob.
#include "moue/recipe.h"

#include <catch2/catch.hpp>

#include "moue/error.h"
#include "moue/version.h"
#include "recipe/knob.h"
#include "support/scratch.h"

using namespace moue;
using namespace moue::test;
namespace fs = std::filesystem;

namespace {

Recipe command(std::vector<std::string> words) {
  words.insert(words.begin(), "moue");
  std::vector<const char*> argv;
  for (const auto& word : words) argv.push_back(word.c_str());
  return read_recipe(static_cast<int>(argv.size()), argv.data());
}

template <class Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string fault_of(const std::string& text) {
  return message_of([&] { parse_recipe(text, "a.toml"); });
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("an unknown key stops the run with its line and the nearest key", "[unit][recipe]") {
  CHECK(fault_of("[train]\nsteps = 10\nstpes = 3\n") ==
        "[recipe] a.toml: line 3: no key 'train.stpes', nearest is 'train.steps'; all keys: "
        "docs/recipe.md");
  CHECK(fault_of("[train.open]\nutnil = 0.3\n") ==
        "[recipe] a.toml: line 2: no key 'train.open.utnil', nearest is 'train.open.until'; all "
        "keys: "
        "docs/recipe.md");
  CHECK(has(fault_of("[trian]\nsteps = 10\n"), "line 1: no table 'trian', nearest is 'train'"));
  CHECK(has(fault_of("topology = 'aligned'\n"), "no key 'topology', nearest is 'plan.topology'"));
  CHECK(has(fault_of("[[train.group]]\npattern = 'x'\n"),
            "line 1: no table 'train.group', nearest is 'train.groups'"));
  CHECK(has(fault_of("zzzzzzzzzz = 1\n"), "line 1: no key 'zzzzzzzzzz'; all keys"));
}

TEST_CASE("rows of a list of tables", "[unit][recipe]") {
  const std::string text =
      "[train]\nfreeze = ['*.experts.*', 'a\"b']\n"
      "[[train.groups]]\npattern = 'moue.*'\nlr_multiplier = 3\n"
      "[[train.groups]]\npattern = 'lm_head*'\nfrozen = true\nstart_step = 7\n";
  const Recipe recipe = parse_recipe(text, "a.toml");
  CHECK(recipe.train.freeze == std::vector<std::string>{"*.experts.*", "a\"b"});
  REQUIRE(recipe.train.groups.size() == 2);
  CHECK(recipe.train.groups[0].pattern == "moue.*");
  CHECK(recipe.train.groups[0].lr_multiplier == 3.0);
  CHECK(recipe.train.groups[0].weight_decay == -1);
  CHECK_FALSE(recipe.train.groups[0].frozen);
  CHECK(recipe.train.groups[1].lr_multiplier == 1.0);
  CHECK(recipe.train.groups[1].frozen);
  CHECK(recipe.train.groups[1].start_step == 7);
  const std::string once = resolved(recipe, "train");
  CHECK(has(once, "[[train.groups]]\npattern = \"lm_head*\""));
  CHECK(resolved(parse_recipe(once, "resolved"), "train") == once);
  CHECK(parse_recipe(once, "resolved").train.freeze == recipe.train.freeze);
  CHECK_FALSE(has(resolved(Recipe(), "train"), "groups"));

  CHECK(has(fault_of("[[train.groups]]\nlr_multiplier = 3\n"),
            "line 1: a row of 'train.groups' has no pattern"));
  CHECK(
      has(fault_of("[[train.groups]]\npattern = 'x'\nlr_multiplyer = 3\n"),
          "line 3: no key 'train.groups.lr_multiplyer', nearest is 'train.groups.lr_multiplier'"));
  CHECK(has(fault_of("[[train.groups]]\npattern = 3\n"),
            "line 2: 'train.groups.pattern' is 3, wanted PATTERN"));
  CHECK(has(fault_of("[train]\ngroups = 3\n"),
            "'train.groups' is no list of tables, wanted [[train.groups]]"));
  CHECK(has(fault_of("[train]\nfreeze = [1, 'a']\n"),
            "is a list of something else, wanted a list of strings"));
  CHECK(command({"train", "m", "--out", "o", "--tokens", "t", "--freeze", "a*", "--freeze", "b"})
            .train.freeze == std::vector<std::string>{"a*", "b"});
}

TEST_CASE("several token files are rows of their own list", "[unit][recipe]") {
  const std::string text =
      "[train]\nout = 'o'\nmodel = 'm'\n[[train.data]]\ntokens = 'a.idx'\nweight = 3\n"
      "[[train.data]]\ntokens = 'b'\ntoken_type = 'u32'\n[[train.groups]]\npattern = '*'\n";
  Recipe recipe = parse_recipe(text, "a.toml");
  REQUIRE(recipe.train.data.size() == 2);
  CHECK(recipe.train.data[0].tokens == "a.idx");
  CHECK(recipe.train.data[0].weight == 3);
  CHECK(recipe.train.data[1].weight == 1);
  CHECK(recipe.train.data[1].token_type == "u32");
  CHECK(recipe.train.groups.size() == 1);
  const std::string once = resolved(recipe, "train");
  CHECK(has(once, "[[train.data]]\ntokens = \"b\"\nweight = 1.0\ntoken_type = \"u32\"\n"));
  CHECK(resolved(parse_recipe(once, "resolved"), "train") == once);
  recipe.verb = "train";
  CHECK(message_of([&] { with_paths(recipe); }) == "no error");
  recipe.train.data.clear();
  CHECK(has(message_of([&] { with_paths(recipe); }), "lacks --tokens FILE (or [[train.data]]"));
  CHECK(
      has(fault_of("[[train.data]]\nweight = 3\n"), "line 1: a row of 'train.data' has no tokens"));
  CHECK(has(fault_of("[[train.data]]\ntokens = 'a'\nweight = 0\n"),
            "'train.data.weight' is 0, wanted a number"));
}

TEST_CASE("a run from scratch makes what it trains", "[unit][recipe]") {
  const auto filled = [](const std::string& text) {
    Recipe recipe = parse_recipe("[train]\ninit = 'c.json'\ntokens = 't'\n" + text, "a.toml");
    recipe.verb = "train";
    return with_paths(recipe);
  };
  const Recipe plain = filled("out = 'runs/a/train'\nseed = 4\n");
  CHECK(plain.train.from_scratch);
  CHECK(plain.train.model == "runs/a/model");
  CHECK(initial_directory(plain) == "runs/a/init");
  CHECK(plain.convert.seed == 4);
  CHECK(plain.train.open.from == 0.2);
  CHECK(plain.train.open.until == 0.6);
  const std::string once = resolved(plain, "train");
  CHECK(has(once, "[plan]\n"));
  Recipe again = parse_recipe(once, "resolved");
  again.verb = "train";
  CHECK(resolved(with_paths(again), "train") == once);
  const Recipe control = filled("out = 'runs/a/c'\ncontrol = true\n[train.open]\nfrom = 0.7\n");
  CHECK(control.train.model == "runs/a/init");
  CHECK(control.train.open.from == 0.7);
  CHECK(control.train.open.until == 0.7);
  CHECK_FALSE(has(resolved(control, "train"), "[plan]"));
  CHECK(has(message_of([&] { filled("model = 'm'\nout = 'runs/a/t'\n"); }),
            "has both a model, m, and init, which makes runs/a/model"));
}

TEST_CASE("all faults of a file are reported at once", "[unit][recipe]") {
  const std::string fault =
      fault_of("sorce = 'm'\n[train]\nsteps = 0\nlr = 'fast'\nopen = 3\n[paln]\ngroup = 2\n");
  CHECK(has(fault, "[recipe] a.toml: 5 faults: "));
  CHECK(has(fault, "line 1: no key 'sorce', nearest is 'source'"));
  CHECK(has(fault, "line 3: 'train.steps' is 0, wanted an integer, at least 1"));
  CHECK(has(fault, "line 4: 'train.lr' is \"fast\", wanted a number, 0 to 10"));
  CHECK(has(fault, "line 5: 'train.open' is a value, wanted a table [train.open]"));
  CHECK(has(fault, "line 6: no table 'paln', nearest is 'plan'"));
}

TEST_CASE("wrong types and values out of range name what was wanted", "[unit][recipe]") {
  CHECK(has(fault_of("[train]\nsteps = 1.5\n"), "'train.steps' is 1.5, wanted an integer"));
  CHECK(has(fault_of("[train]\nlr = nan\n"), "'train.lr' is nan, wanted a number, 0 to 10"));
  CHECK(has(fault_of("[train]\nbetas = [0.9]\n"),
            "'train.betas' is [0.9], wanted 2 numbers, at least 0 and below 1"));
  CHECK(has(fault_of("[train]\nbetas = [0.9, 1.0]\n"), "is [0.9, 1.0], wanted 2 numbers"));
  CHECK(has(fault_of("[train]\nbetas = ['a', 1]\n"),
            "is a list of something else, wanted 2 numbers"));
  CHECK(has(fault_of("[train]\ncontrol = 1\n"), "'train.control' is 1, wanted true or false"));
  CHECK(has(fault_of("[train]\ntokens = 1979-05-27\n"),
            "'train.tokens' is a date or time, wanted a path"));
  CHECK(has(fault_of("[train]\ntokens = \"a\\u0000b\"\n"),
            "'train.tokens' is \"a\\u0000b\", wanted a path"));
  CHECK(
      has(fault_of("[plan]\ntopology = 'half'\n"), "'plan.topology' is \"half\", wanted one of "));
  CHECK(has(fault_of("[plan]\nstate_dim = 257\n"), "is 257, wanted an integer, 1 to 256"));
  CHECK(has(fault_of("[validate]\nmemory = '4 lots'\n"),
            "is \"4 lots\", wanted a size such as \"4GiB\""));
  CHECK(has(fault_of("[train]\nsteps = 1\nsteps = 2\n"), "a.toml: line 3, column 9: "));
  CHECK(has(fault_of("[train\n"), "a.toml: line 1, column 7: "));
  CHECK(has(fault_of("x = " + std::string(100000, '[')), "a.toml: line 1"));
}

TEST_CASE("good values reach their place", "[unit][recipe]") {
  const Recipe recipe = parse_recipe(
      "source = 'm'\n[plan]\ngroup = 2\norigin = -8\n[train]\nlr = 1\nbetas = [0, 0.95]\nwarmup = "
      "7\n"
      "[train.open]\nschedule = 'psr'\n[validate]\nmemory = '512MiB'\n",
      "a.toml");
  CHECK(recipe.source == "m");
  CHECK(recipe.plan.group == 2);
  CHECK(recipe.plan.origin == -8);
  CHECK_FALSE(recipe.plan.window);
  CHECK(recipe.train.lr == 1.0);
  CHECK(recipe.train.betas == std::vector<double>{0, 0.95});
  CHECK(recipe.train.warmup == 7);
  CHECK(recipe.train.open.schedule == "psr");
  CHECK(recipe.validate.memory == uint64_t{512} << 20);
  CHECK(recipe.given.contains("train.open.schedule"));
  CHECK_FALSE(recipe.given.contains("train.steps"));
}

TEST_CASE("memory sizes", "[unit][recipe]") {
  CHECK(parse_size("4GiB") == uint64_t{4} << 30);
  CHECK(parse_size("1.5 MiB") == 1572864);
  CHECK(parse_size("2GB") == 2000000000);
  CHECK(parse_size("12") == 12);
  CHECK(parse_size("7B") == 7);
  for (const char* bad : {"", "GiB", "-1", "4gb", "4 GiB x", "inf", "1e300GiB", "nan"}) {
    INFO(bad);
    CHECK_FALSE(parse_size(bad));
  }
  for (const uint64_t bytes : {uint64_t{4} << 30, uint64_t{1536} << 10, uint64_t{1000001}}) {
    CHECK(parse_size(size_text(bytes)) == bytes);
  }
}

TEST_CASE("flags are spelled as keys and win over the file", "[unit][recipe]") {
  const ScratchDir folder;
  const auto file = folder
                        .write("a.toml",
                               "source = 'from_file'\nout = 'run'\n[train]\nsteps = 10\nlr = 0.5\n"
                               "tokens = 'file.u16'\n[train.open]\nuntil = 0.3\n")
                        .string();
  const Recipe recipe =
      command({"train", "model", "--recipe", file, "--held_out", "h.u16", "--steps", "20",
               "--betas", "0.8", "0.9", "--open.until", "0.5", "--control"});
  CHECK(recipe.verb == "train");
  CHECK(recipe.source == "from_file");
  CHECK(recipe.train.model == "model");
  CHECK(recipe.train.tokens == "file.u16");
  CHECK(recipe.train.held_out == "h.u16");
  CHECK(recipe.train.steps == 20);
  CHECK(recipe.train.lr == 0.5);
  CHECK(recipe.train.betas == std::vector<double>{0.8, 0.9});
  CHECK(recipe.train.open.until == 0.5);
  CHECK(recipe.train.control);
  CHECK(command({"plan", "m", "--origin", "-8"}).plan.origin == -8);
  CHECK(command({"inspect", "other", "--recipe", file, "--json"}).source == "other");
  CHECK(command({"inspect", "--recipe", file}).source == "from_file");
  CHECK(command({"validate", "a", "b", "--memory", "1GiB", "--quiet"}).validate.memory ==
        uint64_t{1} << 30);
}

TEST_CASE("a list of names, and a flag that means all of them", "[unit][recipe]") {
  CHECK(command({"plan", "m"}).plan.compare.empty());
  CHECK(command({"plan", "m", "--compare"}).plan.compare == "all");
  CHECK(command({"plan", "m", "--compare", "--group", "4"}).plan.compare == "all");
  CHECK(command({"plan", "m", "--compare", "--group", "4"}).plan.group == 4);
  CHECK(command({"plan", "m", "--compare", "sliding,aligned"}).plan.compare == "sliding,aligned");
  CHECK(parse_recipe("[plan]\ncompare = 'one_pool'\n", "a.toml").plan.compare == "one_pool");
  CHECK(has(message_of([] {
              command({"plan", "m", "--compare", "sliding,,aligned,x"});
            }),
            "--compare is \"sliding,,aligned,x\", wanted one or more, joined by commas, of "));
  CHECK(has(message_of([] { command({"plan", "m", "--group"}); }), "--group"));
}

TEST_CASE("faults of the command line", "[unit][recipe]") {
  CHECK(message_of([] {
          command({"train", "m", "--stpes", "3", "--tokns=t", "--out", "o"});
        }) ==
        "[recipe] moue train: no flag '--stpes', nearest is '--steps'; no further argument '3'; no "
        "flag '--tokns=t', "
        "nearest is '--tokens'; see moue train --help");
  CHECK(message_of([] {
          command({"inspekt", "m"});
        }) == "[recipe] moue: no verb 'inspekt', nearest is 'inspect'; see moue --help");
  CHECK(has(message_of([] { command({}); }), "[recipe] no verb, wanted inspect, "));
  CHECK(has(message_of([] {
              command({"plan", "m", "--group", "two", "--stride", "0"});
            }),
            "[recipe] moue plan: --group is \"two\", wanted an integer, 1 to 1000000; --stride is "
            "0, wanted"));
  CHECK(has(message_of([] {
              command({"plan", "m", "--group"});
            }),
            "[recipe] command line: --group"));
  CHECK(has(message_of([] { command({"plan", "m", "--group", "1", "--group", "2"}); }), "--group"));
  CHECK(has(message_of([] { command({"inspect", "m", "n"}); }), "no further argument 'n'"));
  CHECK(message_of([] { command({"measure"}); }) ==
        "[recipe] moue measure lacks the model (first argument, or source = in a recipe) and "
        "--tokens FILE; see moue "
        "measure --help");
  CHECK(has(message_of([] {
              command({"plan", "m", "--recipe", "/nowhere.toml"});
            }),
            "/nowhere.toml"));
}

TEST_CASE("empty paths are derived from the run's directory", "[unit][recipe]") {
  const ScratchDir folder;
  const auto file = folder.write(
      "a.toml", "source = 's'\nout = '" + folder.path().string() + "'\n[train]\ntokens = 't'\n");
  const auto run = [&](std::vector<std::string> words) {
    words.insert(words.end(), {"--recipe", file.string()});
    return with_paths(command(words));
  };
  CHECK(run({"plan"}).plan.out == folder.path() / "plan.json");
  CHECK(run({"convert"}).convert.plan.empty());
  CHECK(run({"train"}).train.model == folder.path() / "model");
  CHECK(run({"train"}).train.out == folder.path() / "train");
  CHECK(run({"train", "--control"}).train.model == "s");
  CHECK(run({"train", "--control"}).train.out == folder.path() / "control");
  CHECK(run({"train", "--out", "x"}).train.out == "x");
  CHECK(run({"validate"}).validate.result == folder.path() / "model");
  folder.write("plan.json", "{}");
  CHECK(run({"convert"}).convert.plan == folder.path() / "plan.json");
  CHECK(with_paths(command({"plan", "m"})).plan.out == "plan.json");
}

TEST_CASE("a report wants a run alone, and finds its control", "[unit][recipe]") {
  const ScratchDir folder;
  const auto report = [](const fs::path& run) {
    return with_paths(command({"train", "--report", run.string()})).train;
  };
  const fs::path out = folder.path();
  folder.write("train/train.jsonl", "");
  CHECK(report(out).report == out);
  CHECK(report(out).compare.empty());
  folder.write("control/train.jsonl", "");
  for (const fs::path& run : {out, out / "", out / "train", out / "train" / ""})
    CHECK(report(run).compare == out / "control");
  CHECK(report(out / "control").compare.empty());  // not itself
  CHECK(command({"train", "--report", "a", "--compare", "b"}).train.compare == "b");
  CHECK(command({"train", "--report", "a"}).warnings.empty());
  CHECK(command({"train", "--report", "a", "--lr", "0.1", "--steps", "9"}).warnings ==
        std::vector<std::string>{
            "a report trains nothing: 'train.lr', 'train.steps' without effect"});
  // A run that trains is shown beside the control, too.
  const auto trained = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {"train", "m", "--tokens", "t", "--out"});
    return with_paths(command(words)).train.compare;
  };
  CHECK(trained({(out / "train").string()}) == out / "control");
  CHECK(trained({(out / "control").string(), "--control"}).empty());
}

TEST_CASE("a setting without effect is a warning", "[unit][recipe]") {
  const auto warnings = [](std::vector<std::string> words) {
    return command(std::move(words)).warnings;
  };
  const std::vector<std::string> control = {"train", "m",     "--control", "--tokens",
                                            "t",     "--out", "o"};
  CHECK(warnings(control).empty());
  auto with_open = control;
  with_open.insert(with_open.end(), {"--open.until", "0.5"});
  CHECK(warnings(with_open) ==
        std::vector<std::string>{
            "'train.open.until' has no effect in this run: a control has no foreign slots"});
  auto with_default = control;
  with_default.insert(with_default.end(), {"--open.until", "0.4"});
  CHECK(warnings(with_default).empty());
  CHECK(warnings({"measure", "m", "--tokens", "t", "--eps", "0.01"}).size() == 1);
  CHECK(warnings({"measure", "m", "--tokens", "t", "--eps", "0.01", "--plan", "p.json"}).empty());
  CHECK(warnings({"validate", "a", "b", "--max_kl", "0.1"}).size() == 1);
}

TEST_CASE("what resolves, reads back and resolves to the same", "[unit][recipe]") {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator("recipes")) files.push_back(entry.path());
  REQUIRE(files.size() >= 2);
  for (const auto& file : files) {
    INFO(file.string());
    const Recipe recipe = parse_recipe(file_text(file), file.string());
    CHECK_FALSE(recipe.given.empty());
    const std::string once = resolved(recipe, "");
    CHECK(resolved(parse_recipe(once, "resolved"), "") == once);
    CHECK(once != resolved(Recipe(), ""));
    Recipe run = recipe;
    run.verb = "train";
    for (const bool control : {false, true}) {
      run.train.control = control;
      CHECK(message_of([&] { with_paths(run); }) == "no error");
    }
  }
}

TEST_CASE("every knob survives the way to text and back", "[unit][recipe]") {
  Recipe recipe;
  for (const Knob& knob : knobs()) {
    const Field field = knob.at(recipe);
    if (auto* const* truth = std::get_if<bool*>(&field)) **truth = true;
    if (auto* const* whole = std::get_if<int64_t*>(&field))
      **whole = static_cast<int64_t>(knob.least) + 1;
    if (auto* const* maybe = std::get_if<std::optional<int64_t>*>(&field)) **maybe = 3;
    if (auto* const* real = std::get_if<double*>(&field)) **real = knob.least + 1.0 / 3.0;
    if (auto* const* size = std::get_if<uint64_t*>(&field)) **size = 123456789;
    if (auto* const* name = std::get_if<std::string*>(&field))
      **name = knob.choices.empty() ? "2:6" : knob.choices.back();
    if (auto* const* path = std::get_if<fs::path*>(&field)) **path = "odd \"name\"\\\n\t.bin";
    if (auto* const* list = std::get_if<std::vector<double>*>(&field))
      **list = {1.0 / 3.0, 0.1 + 0.2};
    if (auto* const* words = std::get_if<std::vector<std::string>*>(&field))
      **words = {"odd \"name\"\\", "*"};
  }
  recipe.train.groups = {recipe.group};
  recipe.train.data = {recipe.data};
  Recipe back = parse_recipe(resolved(recipe, ""), "resolved");
  REQUIRE(back.train.groups.size() == 1);
  back.group = back.train.groups[0];
  REQUIRE(back.train.data.size() == 1);
  back.data = back.train.data[0];
  CHECK(back.given.size() == knobs().size());
  for (const Knob& knob : knobs()) {
    INFO(knob.key);
    CHECK(toml_text(knob, back) == toml_text(knob, recipe));
  }
  CHECK(back.train.lr == recipe.train.lr);
  CHECK(back.train.betas == recipe.train.betas);
  CHECK(back.train.tokens == recipe.train.tokens);
}

TEST_CASE("every default lies within its own bounds", "[unit][recipe]") {
  const Recipe defaults;
  const std::string text = resolved(defaults, "");
  CHECK(fault_of(text) == "no error");
  for (const Knob& knob : knobs()) {
    INFO(knob.key);
    CHECK_FALSE(knob.help.empty());
    const bool is_word = !knob.choices.empty() || !knob.free.empty();
    CHECK(is_word == std::holds_alternative<std::string*>(knob.at(defaults)));
  }
}

TEST_CASE("what decides the bytes of a result leaves out paths, threads and memory",
          "[unit][recipe]") {
  const Recipe recipe = parse_recipe(
      "source = '/a/b'\n[convert]\nseed = 5\nout = '/c'\n[plan]\ngroup = 3\n", "a.toml");
  const std::string text = resolved(recipe, "convert", RecipePart::Reproducible);
  CHECK(has(text, "seed = 5"));
  CHECK(has(text, "group = 3"));
  CHECK_FALSE(has(text, "/"));
  CHECK_FALSE(has(text, "threads"));
  CHECK(has(resolved(recipe, "convert"), "source = \"/a/b\""));
  CHECK_FALSE(has(resolved(recipe, "convert"), "[train]"));
}

TEST_CASE("help names every flag of a verb and shows examples", "[unit][recipe]") {
  for (const char* verb : {"inspect", "measure", "plan", "convert", "train", "validate"}) {
    const std::string help = command({verb, "--help"}).message;
    INFO(help);
    CHECK(has(help, std::string("Usage: moue ") + verb + " [OPTIONS] ["));
    CHECK(has(help, "Examples:"));
    CHECK(has(help, "--recipe"));
    for (const Knob& knob : knobs()) {
      const bool is_flag =
          !knob.in_row && knob.key != "train.model" && knob.key != "validate.result";
      if (knob.key.starts_with(std::string(verb) + ".") && is_flag) {
        CHECK(has(help, "--" + std::string(knob.flag())));
      }
    }
  }
  CHECK(has(command({"--help"}).message, "Exit codes"));
  CHECK(command({"--version"}).message == std::string("moue ") + kVersion + "\n");
}

TEST_CASE("docs/recipe.md is what the program prints", "[unit][recipe]") {
  INFO("renew it: build/core/moue --recipe_reference > docs/recipe.md");
  CHECK(file_text("docs/recipe.md") == recipe_reference());
}

TEST_CASE("one version everywhere", "[unit][recipe]") {
  CHECK(has(file_text("CMakeLists.txt"), std::string("project(moue VERSION ") + kVersion + " "));
  CHECK(has(file_text("CHANGELOG.md"), std::string("## ") + kVersion));
}
