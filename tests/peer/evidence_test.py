"""scripts/evidence: its arithmetic on recorded journals, its recipes, and what it does when it is stopped."""
import copy
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import unittest
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "scripts"))
import evidence_report  # noqa: E402


def script(name):
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / "scripts" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


evidence = script("evidence")

# Last held-out losses by arm and seed; every number below is worked out from these by hand.
LOSSES = {"control": [3.10, 3.20, 3.30], "better": [3.09, 3.18, 3.29], "noisy": [3.00, 3.40, 3.25]}
TABLE = {"about": "a test", "arm": [{"name": name} for name in LOSSES]}
SETTINGS = {"train": {"steps": 20, "batch": 16, "length": 256, "lr": 1e-3, "tokens": "t", "seed": 0}}

# Stands in for moue: plans, converts, trains four steps of a journal; the first `train` is interrupted after two.
PROGRAM = """#!{python}
import json, os, pathlib, signal, sys, time, tomllib
words = sys.argv[1:]
recipe = tomllib.loads(pathlib.Path(words[words.index("--recipe") + 1]).read_text())
out = pathlib.Path(recipe["out"])
with open("{log}", "a") as log:
    log.write(" ".join(words) + "\\n")
if words[0] == "plan":
    home = [[l, e] for l in range(3) for e in range(4)]
    slots = [[4 * l + e for e in range(4)] + [4 * ((l + 1) % 3) + e for e in range(4)] for l in range(3)]
    (out / "plan.json").write_text(json.dumps({{"notes": [], "moue": {{"home": home, "slots": slots, "experts_per_layer": 4,
                                                                   "topology": {{"name": "half_staggered"}}}}}}))
elif words[0] == "convert":
    (out / "model").mkdir()
elif words[0] == "train":
    folder = out / ("control" if recipe["train"].get("control") else "train")
    steps, journal = recipe["train"]["steps"], folder / "train.jsonl"
    folder.mkdir(exist_ok="--resume" in words)
    done = len(journal.read_text().splitlines()) if journal.exists() else 0
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    if "{wait}" == "wait" and done == 0:
        while not asked:
            time.sleep(0.01)
    with journal.open("a") as stream:
        for step in range(done, steps):
            loss = 3 - 0.01 * step - (0 if recipe["train"].get("control") else 0.005)
            stream.write(json.dumps({{"step": step + 1, "loss": loss, "held_out": loss, "dead": 1}}) + "\\n")
            if asked and step == 1:
                sys.exit(4)
    print(json.dumps({{"facts": {{"held_out_last": loss}}}}))
    sys.exit(0)
print("{{}}")
"""


def journal(final, steps=20):
    rows = []
    for step in (0, 10, 20):
        rows.append({"step": step, "stage": "full", "held_out": final + (steps - step) / 100, "held_out_standard_error": 0.01,
                     "held_out_foreign_share": 0.2})  # fmt: skip
    rows += [{"step": step, "stage": "full", "loss": 9.0 if step <= 18 else 2.0, "max_vio": [0.5, 1.5], "dead": 3, "lr": 1e-3,
              "entropy": [1.0, None, 2.0], "chosen": [[1, 2], [3, 4]]}
             for step in range(1, 21)]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["step"]))


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)


class Aggregation(Folder):
    def setUp(self):
        super().setUp()
        for arm, losses in LOSSES.items():
            for seed, final in enumerate(losses):
                self.record(arm, seed, journal(final))

    def record(self, arm, seed, text, **fields):
        run = self.folder / arm / f"seed-{seed}"
        folder = run / ("control" if arm == "control" else "train")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.jsonl").write_text(text)
        settings = copy.deepcopy(SETTINGS)
        settings["train"]["seed"] = seed
        settings["train"] |= fields.pop("train", {})
        told = {"arm": arm, "seed": seed, "beside": None if arm == "control" else "control", "why": f"why {arm}", "state": "finished",
                "settings": settings, "seconds": 60, "programs": [{"commit": "c" * 40, "changed": False}], **fields}  # fmt: skip
        (run / "run.json").write_text(json.dumps(told))

    def aggregate(self):
        runs = evidence_report.read_runs(self.folder)
        found = evidence_report.aggregate(runs, "a", "a test", list(LOSSES))
        return found, {arm["name"]: arm for arm in found["arms"]}

    def test_means_spreads_and_differences(self):
        found, arms = self.aggregate()
        self.assertEqual(list(arms), list(LOSSES))
        for name, losses in LOSSES.items():
            self.assertAlmostEqual(arms[name]["loss"]["mean"], statistics.fmean(losses), 12)
            self.assertAlmostEqual(arms[name]["loss"]["spread"], statistics.stdev(losses), 12)
        better = arms["better"]["difference"]  # -0.01, -0.02, -0.01
        self.assertAlmostEqual(better["mean"], -0.04 / 3, 12)
        self.assertAlmostEqual(better["spread"], 0.01 / 3**0.5, 12)
        self.assertEqual(arms["better"]["verdict"], "no difference beyond the spread")  # t = 4.0, wanted 4.303
        self.assertEqual(arms["noisy"]["verdict"], "no difference beyond the spread")
        self.assertNotIn("difference", arms["control"])
        self.assertEqual(found["warnings"], [])

    def test_a_steady_difference_is_told(self):
        self.record("better", 1, journal(3.189))  # -0.01, -0.011, -0.01: t = 31
        self.assertEqual(self.aggregate()[1]["better"]["verdict"], "lower than beside")
        for seed, loss in enumerate((3.11, 3.211, 3.31)):
            self.record("better", seed, journal(loss))
        self.assertEqual(self.aggregate()[1]["better"]["verdict"], "higher than beside")

    def test_seeds_are_paired(self):
        before = self.aggregate()[1]["better"]
        swapped = [LOSSES["better"][seed] for seed in (2, 0, 1)]
        for seed, loss in enumerate(swapped):
            self.record("better", seed, journal(loss))
        after = self.aggregate()[1]["better"]
        self.assertAlmostEqual(before["loss"]["spread"], after["loss"]["spread"], 12)
        self.assertGreater(after["difference"]["spread"], 10 * before["difference"]["spread"])

    def test_averages_are_of_the_last_tenth(self):
        averages = self.aggregate()[1]["better"]["averages"]
        self.assertEqual(averages, {"loss": 2.0, "max_vio": 1.5, "dead": 3.0, "entropy": 1.5})

    def test_curves_are_compared_step_by_step(self):
        _, arms = self.aggregate()
        for (step, value), wanted in zip(arms["better"]["seeds"][1]["difference_curve"], (0, 10, 20), strict=True):
            self.assertEqual(step, wanted)
            self.assertAlmostEqual(value, -0.02, 12)

    def test_what_is_not_finished_does_not_count(self):
        self.record("better", 2, journal(1.0), state="running")
        self.assertEqual(self.aggregate()[1]["better"]["loss"]["count"], 2)
        shutil.rmtree(self.folder / "control" / "seed-1")
        self.assertEqual(self.aggregate()[1]["better"]["difference"]["count"], 1)
        self.assertEqual(self.aggregate()[1]["better"]["verdict"], "one seed: no telling")

    def test_a_journal_that_ends_early_is_refused(self):
        lines = journal(3.0).splitlines(keepends=True)
        self.record("better", 0, "".join(line for line in lines if '"step": 20, "stage": "full", "held_out"' not in line))
        with self.assertRaisesRegex(evidence_report.Nothing, "better/seed-0: finished, but train.jsonl has no held-out loss of step 20"):
            self.aggregate()
        with self.assertRaisesRegex(evidence_report.Nothing, "has no finished run yet"):
            evidence_report.read_runs(self.folder / "none")

    def test_an_unfair_comparison_is_told(self):
        self.record("better", 1, journal(3.0), train={"lr": 2e-3})
        self.record("noisy", 0, journal(3.0), programs=[{"commit": "d" * 40, "changed": True}])
        warnings = self.aggregate()[0]["warnings"]
        self.assertIn("better, seed 1: lr is 0.002, beside it 0.001", warnings)
        self.assertTrue(any("runs of 2 commits" in warning for warning in warnings))
        self.assertTrue(any("uncommitted changes" in warning for warning in warnings))

    def test_what_is_written(self):
        said = evidence_report.write(self.folder, "a", TABLE)
        self.assertIn("| `better` | 3.1867 +- 0.1002 | `control` | -0.0133 +- 0.0058 | 3 |", said)
        self.assertEqual((self.folder / "report.md").read_text(), said)
        stored = json.loads((self.folder / "report.json").read_text())
        self.assertEqual([arm["name"] for arm in stored["arms"]], list(LOSSES))
        picture = xml.etree.ElementTree.parse(self.folder / "report.svg")
        space = "{http://www.w3.org/2000/svg}"
        centres = [float(c.get("cx")) for c in picture.iter(f"{space}circle") if c.get("class") == "m0"]
        small = [c for c in picture.iter(f"{space}circle") if c.get("class") == "m1"]
        zero = next(float(l.get("x1")) for l in picture.iter(f"{space}line") if l.get("class") == "axis")
        self.assertEqual((len(centres), len(small)), (2, 6))
        self.assertLess(centres[0], zero)  # better stands left
        self.assertGreater(centres[1], zero)
        page = (self.folder / "report.html").read_text()
        self.assertIn("--ink: #1b1f24", page)
        self.assertNotIn("<script", page)
        self.assertEqual(page.count("<svg"), 2)


class Recorded(Folder):
    """Two short runs as moue wrote them."""

    def setUp(self):
        super().setUp()
        shutil.copytree(ROOT / "tests" / "golden" / "evidence", self.folder / "out")

    def test_what_is_read_is_what_the_runs_said(self):
        arms = {run["arm"]: run for run in evidence_report.read_runs(self.folder / "out")}
        for name, run in arms.items():
            told = json.loads((self.folder / "out" / name / "seed-1" / "run.json").read_text())["result"]
            self.assertEqual((run["first"], run["final"]), (told["held_out_first"], told["held_out_last"]))
            self.assertEqual(run["averages"]["max_vio"], told["max_vio"])
            self.assertEqual([step for step, _ in run["curve"]], [0, 3])
        self.assertEqual(arms["control"]["first"], arms["similarity"]["first"])  # an upgrade begins where its source is
        self.assertGreater(arms["similarity"]["foreign_share"], 0)
        found = evidence_report.aggregate(list(arms.values()), "a", "recorded")
        self.assertEqual(found["warnings"], [])
        wanted = arms["similarity"]["final"] - arms["control"]["final"]
        self.assertEqual({arm["name"]: arm for arm in found["arms"]}["similarity"]["difference"]["mean"], wanted)

    def test_a_changed_journal_shows(self):
        journal = self.folder / "out" / "similarity" / "seed-1" / "train" / "train.jsonl"
        before = {run["arm"]: run["final"] for run in evidence_report.read_runs(self.folder / "out")}
        journal.write_text(journal.read_text().replace('"held_out":3.2548', '"held_out":3.1548'))
        after = {run["arm"]: run["final"] for run in evidence_report.read_runs(self.folder / "out")}
        self.assertAlmostEqual(after["similarity"], before["similarity"] - 0.1, 12)
        self.assertEqual(after["control"], before["control"])


class Recipes(Folder):
    def options(self, arena):
        sys.argv = ["evidence", arena, "--out", str(self.folder)]
        return evidence.arguments()

    def test_every_arm_makes_a_recipe_that_reads_back(self):
        for arena in ("a", "b"):
            table, arms = evidence.arena_of(arena)
            options = self.options(arena)
            tokens = {name: self.folder / name for name in ("all", "first half", "second half", "held_out")}
            for arm in arms.values():
                run = evidence.Run(table, arm, 1, options)
                run.source = lambda: self.folder
                recipe = run.recipe(tokens)
                self.assertEqual(tomllib.loads(evidence.toml_of(recipe)), recipe, arm["name"])
                self.assertEqual(recipe["train"]["seed"], 1)
                self.assertTrue(arm.get("control") or arm.get("beside"), arm["name"])
                beside = arms.get(arm.get("beside"))
                if beside:
                    theirs = evidence.Run(table, beside, 1, options)
                    theirs.source = lambda: self.folder
                    theirs = theirs.recipe(tokens)
                    for key in ("steps", "batch", "length", "lr", "schedule", "tokens"):
                        self.assertEqual(recipe["train"].get(key), theirs["train"].get(key), (arm["name"], key))

    def test_the_upgrade_half_way_has_half_the_steps(self):
        table, arms = evidence.arena_of("b")
        steps = tomllib.loads((ROOT / table["recipe"]).read_text())["train"]["steps"]
        for arm in arms.values():
            self.assertEqual("half" in arm.get("tokens", ""), arm.get("train", {}).get("steps") == steps // 2, arm["name"])

    def test_overlays_change_what_they_name_alone(self):
        base = {"train": {"lr": 1.0, "open": {"from": 0.1, "until": 0.5}}}
        self.assertEqual(evidence.merged(base, {"train": {"open": {"from": 0.0}}}),
                         {"train": {"lr": 1.0, "open": {"from": 0.0, "until": 0.5}}})  # fmt: skip
        self.assertEqual(base["train"]["open"]["from"], 0.1)

    def test_what_an_arm_stands_on_is_run_too(self):
        _, arms = evidence.arena_of("a")
        self.assertEqual(evidence.chosen(arms, ["random"]), ["control", "random"])
        self.assertEqual(len(evidence.chosen(arms)), 9)
        self.assertEqual(evidence.chosen(arms, tune=True), list(arms))
        with self.assertRaisesRegex(evidence.Refusal, "no arm rnadom; arms: control, half_staggered"):
            evidence.chosen(arms, ["rnadom"])

    def test_tokens_of_arena_b(self):
        corpus = self.folder / "corpus"
        (corpus / "tokenizer").mkdir(parents=True)
        (corpus / "tokenizer" / "tokenizer.json").write_text("{}")
        (corpus / "provenance.json").write_text("one")
        (corpus / "train.bin").write_bytes(bytes(range(14)))  # seven tokens
        (corpus / "held_out.bin").write_bytes(bytes(4))
        options = self.options("b")
        options.out, options.corpus = self.folder / "out", corpus
        for _ in range(2):  # the second time all is there
            tokens = evidence.prepare_data(options)
            self.assertEqual(tokens["first half"].read_bytes(), bytes(range(6)))
            self.assertEqual(tokens["second half"].read_bytes(), bytes(range(6, 14)))
            self.assertEqual(tokens["all"].read_bytes(), bytes(range(14)))
        self.assertEqual(sorted(path.name for path in (options.out / "data" / "init").iterdir()), ["config.json", "tokenizer.json"])
        (corpus / "provenance.json").write_text("two")
        with self.assertRaisesRegex(evidence.Refusal, "was begun with another corpus"):
            evidence.prepare_data(options)
        options.corpus = self.folder
        with self.assertRaisesRegex(evidence.Refusal, "is no corpus; run scripts/corpus"):
            evidence.prepare_data(options)

    def test_random_slots_keep_the_rules(self):
        slots = [[*range(4 * layer, 4 * layer + 4), *range(4 * ((layer + 1) % 5), 4 * ((layer + 1) % 5) + 4)] for layer in range(5)]
        plan = {"notes": [], "moue": {"home": [[layer, expert] for layer in range(5) for expert in range(4)], "slots": slots,
                                      "experts_per_layer": 4, "topology": {"name": "half_staggered"}}}  # fmt: skip
        drawn = []
        for seed in (0, 1, 1):
            file = self.folder / f"plan{len(drawn)}.json"
            file.write_text(json.dumps(plan))
            evidence.draw_slots(file, seed)
            once = file.read_text()
            evidence.draw_slots(file, seed)  # a second time, after a stop
            self.assertEqual(file.read_text(), once)
            drawn.append(json.loads(once)["moue"])
        for block in drawn:
            self.assertEqual(block["topology"]["name"], "by_hand")
            for layer, (mine, before) in enumerate(zip(block["slots"], slots, strict=True)):
                self.assertEqual(mine[:4], before[:4])
                self.assertEqual(len(set(mine)), 8)
                self.assertTrue(all(0 <= p < 20 and p // 4 != layer for p in mine[4:]))
        self.assertNotEqual(drawn[0]["slots"], drawn[1]["slots"])
        self.assertEqual(drawn[1]["slots"], drawn[2]["slots"])


class Runner(Folder):
    def program(self, wait=""):
        file = self.folder / "build" / "full" / "moue"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(PROGRAM.format(python=sys.executable, log=self.folder / "calls", wait=wait))
        file.chmod(0o755)
        return file

    def words(self, *more):
        return [sys.executable, str(ROOT / "scripts" / "evidence"), "a", "--moue", str(self.program()), "--out", str(self.folder / "out"),
                "--seeds", "0", "--steps", "4", *more]  # fmt: skip

    def run_it(self, *more):
        return subprocess.run(self.words(*more), capture_output=True, text=True, check=False)

    def calls(self):
        return (self.folder / "calls").read_text().splitlines()

    def test_arms_are_run_once(self):
        done = self.run_it("--arm", "half_staggered", "--arm", "random")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("| `half_staggered` | 2.9650 | `control` | -0.0050 | 1 | one seed: no telling |", done.stdout)
        verbs = [call.split()[0] for call in self.calls()]
        self.assertEqual(verbs, ["train", "plan", "convert", "train", "plan", "convert", "train"])
        again = self.run_it("--arm", "half_staggered", "--arm", "random")
        self.assertEqual((again.returncode, again.stdout), (0, done.stdout))
        self.assertEqual(len(self.calls()), 7)
        drawn = json.loads((self.folder / "out" / "random" / "seed-0" / "plan.json").read_text())
        self.assertEqual(drawn["moue"]["topology"]["name"], "by_hand")
        told = json.loads((self.folder / "out" / "control" / "seed-0" / "run.json").read_text())
        self.assertEqual((told["state"], told["result"]), ("finished", {"held_out_last": 2.97}))
        self.assertEqual(len(told["programs"][0]["sha256"]), 64)
        self.assertIn("finished", self.run_it("--list").stdout)

    def test_other_settings_are_refused(self):
        self.run_it("--arm", "control")
        other = subprocess.run([*self.words("--arm", "control")[:-3], "5", "--arm", "control"], capture_output=True, text=True, check=False)
        self.assertEqual(other.returncode, 2)
        self.assertIn("control/seed-0 was run with other settings; name another --out, or remove it", other.stderr)

    def test_a_signal_stops_and_the_same_command_goes_on(self):
        words = self.words("--arm", "control")
        self.program("wait")
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
            journal = self.folder / "out" / "control" / "seed-0" / "control"
            for _ in range(1000):
                if journal.exists():
                    break
                time.sleep(0.01)
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            said = process.communicate()[1]
            self.assertEqual(process.returncode, 4, said)
        self.assertIn("the same command goes on", said)
        self.assertEqual(len((journal / "train.jsonl").read_text().splitlines()), 2)
        self.program("")
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len((journal / "train.jsonl").read_text().splitlines()), 4)
        self.assertIn("--resume", self.calls()[-1])
        self.assertNotIn("--resume", self.calls()[0])

    def test_no_run_begins_without_time(self):
        done = self.run_it("--arm", "control", "--time_limit", "30")
        self.assertEqual(done.returncode, 4)
        self.assertFalse((self.folder / "calls").exists())

    def test_a_fault_of_the_program_is_told(self):
        file = self.program()
        words = self.words("--arm", "control")
        file.write_text('#!/bin/sh\necho "[train] tokens names no file" >&2\nexit 2\n')
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("moue train ended with 2: [train] tokens names no file (its lines: ", done.stderr)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(unittest.main())
