// The table of all settings: key, meaning, bounds. Defaults are those of the options structs.
#include <algorithm>

#include "recipe/declare.h"
#include "recipe/knob.h"

namespace moue {
namespace {

std::vector<std::string> with_all(std::vector<std::string> names) {
  names.insert(names.begin(), {"", "all"});
  return names;
}

std::vector<Knob> run_knobs() {
  return {
      MOUE_KNOB(source, "model directory to start from").empty_means("none").local(),
      MOUE_KNOB(out, "OUT, directory of the run: where stages find each other's files")
          .empty_means("none")
          .local(),
      MOUE_KNOB(json, "print the result as one JSON object").local(),
      MOUE_KNOB(quiet, "no lines and no progress on stderr").local(),
  };
}

std::vector<Knob> measure_knobs() {
  return {
      MOUE_KNOB(measure.tokens, "token file").empty_means("required").local(),
      MOUE_KNOB(measure.plan, "plan.json to calibrate for")
          .empty_means("OUT/plan.json where it exists")
          .local(),
      MOUE_KNOB(measure.out, "statistics file to write")
          .empty_means("OUT/statistics.safetensors, without OUT here")
          .local(),
      MOUE_KNOB(measure.token_type, "element type of a raw token file")
          .one_of(kTokenTypes)
          .empty_means("by the file's name or header"),
      MOUE_KNOB(measure.max_tokens, "stop after this many; 0 = the whole file").range(0, 1e15),
      MOUE_KNOB(measure.length, "tokens per window").range(1, 1e6),
      MOUE_KNOB(measure.batch, "windows per forward pass").range(1, 1e6),
      MOUE_KNOB(measure.eps, "share of a layer's tokens whose choice opening may change").below(1),
      MOUE_KNOB(measure.reach,
                "compare experts with those of so many MoE layers to either side; 0 = not")
          .range(0, 65536),
      MOUE_KNOB(measure.likeness,
                "by what: output (errors where the expert is used) or cka (linear CKA)")
          .one_of({"output", "cka"}),
      MOUE_KNOB(measure.samples, "tokens of a layer on which they are compared")
          .range(2, 4096)
          .empty_means("2048, for cka 256"),
      MOUE_KNOB(
          measure.replace,
          "trials: an expert answered for by its best donor within reach, and by a random one")
          .range(0, 1e6),
      MOUE_KNOB(measure.dtype, "arithmetic").one_of(kDtypes),
      MOUE_KNOB(measure.device, "where the model runs").one_of(kDevices),
      MOUE_KNOB(measure.threads, "threads of the CPU; 0 = all cores").range(0, 4096).local(),
  };
}

std::vector<Knob> plan_knobs() {
  return {
      MOUE_KNOB(plan.mode, "share the source's experts, or add copies and share those")
          .one_of({"reuse", "expand"}),
      MOUE_KNOB(plan.experts, "expand: how many experts are added").range(0, 1 << 20),
      MOUE_KNOB(plan.donors, "expand: which experts are copied")
          .one_of({"", "even", "load", "weight"})
          .empty_means("load with statistics, else even"),
      MOUE_KNOB(plan.topology, "named topology, the start of the parameters below")
          .one_of(topology_names()),
      MOUE_KNOB(plan.group, "layers that share one window")
          .range(1, 1e6)
          .empty_means("the topology's"),
      MOUE_KNOB(plan.shift,
                "experts by which the window moves from one group to the next; a "
                "multiple of the experts per layer says the group too")
          .range(-1e6, 1e6)
          .empty_means("the topology's"),
      MOUE_KNOB(plan.window, "experts of the ring that a window shows")
          .range(1, 1e6)
          .empty_means("the topology's"),
      MOUE_KNOB(plan.stride, "distance between two experts of a window")
          .range(1, 1e6)
          .empty_means("the topology's"),
      MOUE_KNOB(plan.origin, "where the first window starts")
          .range(-1e6, 1e6)
          .empty_means("the topology's"),
      MOUE_KNOB(plan.boundary, "what happens at the ends of the ring")
          .one_of({"", "ring", "clamp"})
          .empty_means("the topology's"),
      MOUE_KNOB(plan.reach, "similarity: how many MoE layers away a donor may be")
          .range(1, 65536)
          .empty_means("2"),
      MOUE_KNOB(plan.scores, "similarity: scores of data (statistics) or none (Gaussian inputs)")
          .one_of({"", "data", "none"})
          .empty_means("data where the statistics have them"),
      MOUE_KNOB(plan.samples, "similarity without data: Gaussian inputs").range(2, 4096),
      MOUE_KNOB(plan.max_sharing, "refuse plans in which more layers list one expert; 0 = no cap")
          .range(0, 1e6),
      MOUE_KNOB(plan.state_dim, "numbers of the trajectory state").range(1, 256),
      MOUE_KNOB(plan.foreign_input, "through whose norm a foreign expert is fed")
          .one_of({"home", "layer"}),
      MOUE_KNOB(plan.compare,
                "topologies to put side by side, joined by commas; no plan is written")
          .some_of(with_all(topology_names()))
          .bare_means("all")
          .empty_means("one plan is made")
          .local(),
      MOUE_KNOB(plan.statistics, "statistics file to plan by").empty_means("none").local(),
      MOUE_KNOB(plan.out, "plan file to write, its picture beside it")
          .empty_means("OUT/plan.json, without OUT here")
          .local(),
  };
}

std::vector<Knob> convert_knobs() {
  return {
      MOUE_KNOB(convert.plan, "plan.json to follow")
          .empty_means("OUT/plan.json where it exists, else made from [plan]")
          .local(),
      MOUE_KNOB(convert.statistics, "statistics file with the calibration")
          .empty_means("none")
          .local(),
      MOUE_KNOB(convert.out, "model directory to write").empty_means("OUT/model").local(),
      MOUE_KNOB(convert.layout,
                "the source's shards linked beside new files; everything packed anew in reading "
                "order; or exported as an ordinary model")
          .one_of({"", "linked", "packed", "export"})
          .empty_means("linked, and export with layers"),
      MOUE_KNOB(convert.base_model, "the source's name on the Hub, for the model card")
          .form("ORG/MODEL")
          .empty_means("not known"),
      MOUE_KNOB(convert.dtype, "float weights are rounded to it; the pool's own stay float32")
          .one_of({"", "float32", "bfloat16", "float16"})
          .empty_means("as in the source"),
      MOUE_KNOB(convert.layers, "cut an ordinary model to its layers FIRST to LAST - 1")
          .form("FIRST:LAST")
          .empty_means("all"),
      MOUE_KNOB(convert.shard_size, "largest weight file, unless one tensor is larger")
          .range(1 << 12, 1e15),
      MOUE_KNOB(
          convert.memory,
          "all buffers together; the program takes up to 64 MiB more, and 1 KiB for each tensor")
          .range(1 << 20, 1e15)
          .local(),
      MOUE_KNOB(convert.threads, "threads that read, hash and write; 0 = two for each core")
          .range(0, 4096)
          .local(),
      MOUE_KNOB(
          convert.hash,
          "note the SHA-256 of the source's weight files, linked ones too: all are read once"),
      MOUE_KNOB(convert.dry_run, "say bytes, time and memory of every layout; write nothing")
          .local(),
      MOUE_KNOB(convert.seed, "draws the trajectory keys and queries").range(0, 9e15),
  };
}

std::vector<Knob> validate_knobs() {
  return {
      MOUE_KNOB(validate.result, "model directory to examine").empty_means("OUT/model").local(),
      MOUE_KNOB(validate.manifest,
                "re-check this directory by its own manifest: files, hashes, ledger; no source")
          .empty_means("the gates")
          .local(),
      MOUE_KNOB(validate.reference, "safetensors with tokens and logits from elsewhere")
          .empty_means("G2 does not apply")
          .local(),
      MOUE_KNOB(validate.tokens, "token file for G1 and G3")
          .empty_means("512 seeded tokens")
          .local(),
      MOUE_KNOB(validate.token_type, "element type of a raw token file")
          .one_of(kTokenTypes)
          .empty_means("by the file's name or header"),
      MOUE_KNOB(validate.max_tokens, "tokens used for G3; 0 = the whole file").range(0, 1e15),
      MOUE_KNOB(validate.length, "tokens per window").range(1, 1e6),
      MOUE_KNOB(validate.batch, "windows per forward pass").range(1, 1e6),
      MOUE_KNOB(validate.memory, "weights held at a time").range(1 << 20, 1e15).local(),
      MOUE_KNOB(validate.expect, "state to demand of the result")
          .one_of({"", "closed", "opened", "trained", "relocked"})
          .empty_means("as the result says"),
      MOUE_KNOB(validate.dtype, "arithmetic")
          .one_of({"", "float32", "bfloat16"})
          .empty_means("float32 for small models, else the checkpoint's"),
      MOUE_KNOB(validate.device, "where the models run").one_of(kDevices),
      MOUE_KNOB(validate.threads, "threads of the CPU; 0 = all cores").range(0, 4096).local(),
      MOUE_KNOB(validate.max_logit_error, "G2: largest difference over the largest logit")
          .range(0, 1e9),
      MOUE_KNOB(validate.max_loss_increase, "G3: nats over the source; negative = only reported")
          .range(-1, 1e9),
      MOUE_KNOB(validate.max_kl, "G3: mean KL(source || result) in nats; negative = only reported")
          .range(-1, 1e9),
      MOUE_KNOB(validate.only_bytes, "G0 alone: compare files, run no model"),
      MOUE_KNOB(validate.html, "page to write").empty_means("OUT/report.html").local(),
  };
}

std::vector<Knob> all_knobs() {
  std::vector<Knob> all;
  for (auto&& part : {run_knobs(), measure_knobs(), plan_knobs(), convert_knobs(), train_knobs(),
                      validate_knobs()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

}  // namespace

const std::vector<Knob>& knobs() {
  static const std::vector<Knob> all = all_knobs();
  return all;
}

const Knob* find_knob(std::string_view key) {
  const auto& all = knobs();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Knob& knob) { return knob.key == key; });
  return found == all.end() ? nullptr : &*found;
}

std::string_view Knob::table() const {
  const size_t dot = key.rfind('.');
  return dot == std::string::npos ? std::string_view() : std::string_view(key).substr(0, dot);
}

std::string_view Knob::flag() const {
  const size_t dot = key.find('.');
  return dot == std::string::npos ? std::string_view(key) : std::string_view(key).substr(dot + 1);
}

std::vector<std::string_view> tables_of(std::string_view verb, const Recipe& recipe) {
  const bool converts = !recipe.train.init.empty() && !recipe.train.control;
  if (verb == "inspect") return {};
  if (verb == "convert") return {"convert", "plan"};
  if (verb == "train" && converts) return {"train", "convert", "plan"};
  return {verb};
}

}  // namespace moue
