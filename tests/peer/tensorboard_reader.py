"""A run that is killed and resumed, read back by the tensorboard package: every point once, equal to train.jsonl."""
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

try:
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.compat.proto import event_pb2
except ImportError:
    print("tensorboard is not in .venv: scripts/setup installs it")
    sys.exit(77)

MOUE = sys.argv[1]
STEPS = ["--steps", "30", "--save_every", "10", "--log_every", "5", "--eval_every", "10"]


def moue(*words):
    subprocess.run([MOUE, *map(str, words), "--quiet"], check=True, stdout=subprocess.DEVNULL)


def points(folder):
    """(tag, step) to the list of its values, as TensorBoard shows them."""
    reader = event_accumulator.EventAccumulator(str(folder), size_guidance={event_accumulator.SCALARS: 0})
    reader.Reload()
    found = {}
    for tag in reader.Tags()["scalars"]:
        for point in reader.Scalars(tag):
            found.setdefault((tag, point.step), []).append(point.value)
    return found


def float32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def expected(journal):
    """What the journal has of the same curves."""
    names = {"loss": "loss/train", "lr": "optimizer/lr", "grad_norm": "optimizer/gradient_norm",
             "pool_max_vio": "balance/pool_max_vio", "balance_layer": "balance/layer",
             "foreign_share": "routing/foreign_share", "distinct": "routing/distinct_experts",
             "held_out": "loss/held_out", "held_out_foreign_share": "routing/held_out_foreign_share"}
    layers = {"max_vio": "max_vio", "foreign": "foreign_share", "entropy": "entropy_nats", "margin": "margin",
              "trajectory_bonus": "trajectory_bonus", "logit_spread": "logit_spread", "reuse": "reuse_with_next",
              "reuse_chance": "reuse_with_next_by_chance"}
    wanted = {}
    for line in map(json.loads, journal.read_text().splitlines()):
        if "entropy" not in line and "held_out" not in line:
            continue
        for key, tag in names.items():
            if key in line:
                wanted[tag, line["step"]] = float32(line[key])
        for key, group in layers.items():
            for layer, value in enumerate(line.get(key, [])):
                wanted[f"{group}/layer_{layer:02}", line["step"]] = float32(value)
    return wanted


def without_starts(source, target):
    """The event files with the records that mark a restart left out."""
    shutil.copytree(source, target)
    for file in target.iterdir():
        data, kept, at = file.read_bytes(), b"", 0
        while at < len(data):
            size = 16 + struct.unpack_from("<Q", data, at)[0]
            event = event_pb2.Event.FromString(data[at + 12 : at + size - 4])
            kept += b"" if event.HasField("session_log") else data[at : at + size]
            at += size
        file.write_bytes(kept)


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    recipe = folder / "pico.toml"
    recipe.write_text(pathlib.Path("recipes/pico.toml").read_text().replace('"runs/pico"', f'"{folder}/run"'))
    train = folder / "run" / "train"
    moue("convert", "--recipe", recipe)
    moue("train", "--recipe", recipe, *STEPS, "--stop_after", 20)
    # As a kill after step 20 would have left it, had step 20 not been saved.
    shutil.rmtree(train / "step-000020")
    (train / "latest").write_text("step-000010\n")
    moue("train", "--recipe", recipe, *STEPS, "--resume")

    events = train / "tensorboard"
    assert len(list(events.iterdir())) == 2, "a resumed run continues in a new file"
    seen, wanted = points(events), expected(train / "train.jsonl")
    assert len(wanted) > 300, len(wanted)
    for point, value in wanted.items():
        assert seen.get(point) == [value], (point, seen.get(point), value)
    assert {step for _, step in seen} == {0, 1, 5, 10, 15, 20, 25, 30}
    # Control: without the marks of restarts, steps 15 and 20 stand there twice.
    without_starts(events, folder / "bare")
    twice = {step for (_, step), values in points(folder / "bare").items() if len(values) > 1}
    assert twice == {15, 20}, twice
    print(f"{len(wanted)} points of {len(seen)} compared with train.jsonl")
