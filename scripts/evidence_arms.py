"""Arms of scripts/evidence: read, chosen, laid over their recipes; random topologies."""
import copy
import json
import os
import pathlib
import random
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
ARM_KEYS = {"name", "why", "level", "beside", "control", "random", "measure", "source", "tokens", "plan", "train"}


class Refusal(Exception):
    """Something the user can mend."""


def write_whole(path, text):
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.rename(path)


def arena_of(name):
    table = tomllib.loads((ROOT / "scripts" / "evidence.toml").read_text(encoding="utf-8"))[name]
    arms = {arm["name"]: arm for arm in table["arm"]}
    for arm in table["arm"]:
        for key in ("beside", "source"):
            if arm.get(key, "init") != "init" and arm[key] not in arms:
                raise Refusal(f"arm {arm['name']}: {key} is {arm[key]}, which is no arm")
        if arm.keys() - ARM_KEYS:
            raise Refusal(f"arm {arm['name']} has unknown keys {sorted(arm.keys() - ARM_KEYS)}; known: {sorted(ARM_KEYS)}")
    return table, arms


def chosen(arms, asked=None, tune=False):
    """Names in their order: those asked for, and those they are compared with or start from."""
    unknown = [name for name in asked or [] if name not in arms]
    if unknown:
        raise Refusal(f"no arm {', '.join(unknown)}; arms: {', '.join(arms)}")
    wanted = set(asked or [name for name, arm in arms.items() if tune or arm.get("level", 1) == 1])
    needed = set()
    while wanted - needed:
        needed |= wanted
        wanted = {arms[name][key] for name in needed for key in ("beside", "source") if arms[name].get(key, "init") != "init"}
    return [name for name in arms if name in needed]


def merged(base, overlay):
    result = copy.deepcopy(base)
    for key, value in overlay.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def toml_value(value):
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value)  # of text, numbers and truths JSON's notation is TOML's


def toml_of(table, path=""):
    """Recipes as moue reads them: tables, and lists of tables."""
    is_rows = lambda value: isinstance(value, list) and value and isinstance(value[0], dict)  # noqa: E731
    plain = {key: value for key, value in table.items() if not isinstance(value, dict) and not is_rows(value)}
    text = "".join(f"{key} = {toml_value(value)}\n" for key, value in plain.items())
    for key, value in table.items():
        name = f"{path}.{key}" if path else key
        for row in value if is_rows(value) else []:
            text += f"\n[[{name}]]\n{toml_of(row, name)}"
        if isinstance(value, dict):
            text += f"\n[{name}]\n{toml_of(value, name)}"
    return text


def draw_slots(file, seed):
    """Foreign experts of each layer drawn anew among all other layers' (as many, none twice)."""
    plan = json.loads(file.read_text(encoding="utf-8"))
    block, draw = plan["moue"], random.Random(f"random topology {seed}")
    if block["topology"]["name"] == "by_hand":
        return  # done before the run was stopped
    own = block["experts_per_layer"]
    for layer, slots in enumerate(block["slots"]):
        others = [expert for expert, (home, _) in enumerate(block["home"]) if home != layer]
        block["slots"][layer] = slots[:own] + draw.sample(others, len(slots) - own)
    block["topology"]["name"] = "by_hand"
    plan["notes"].append(f"foreign slots drawn at random, seed {seed}")
    file.with_suffix(".svg").unlink(missing_ok=True)  # shows the topology that was replaced
    write_whole(file, json.dumps(plan) + "\n")
