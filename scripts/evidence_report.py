"""What the runs of scripts/evidence reached: each arm beside its control, as JSON, Markdown, HTML and SVG."""
import html
import json
import math
import pathlib
import re
import statistics

ROOT = pathlib.Path(__file__).resolve().parent.parent
T_975 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]  # Student's, by degrees of freedom from 1
LAST = 0.1  # share of the steps, at the end, over which what is logged per step is averaged
NOT_AVERAGED = {"step", "lr", "alpha", "mean_loss", "epochs", "spike"}


class Nothing(Exception):
    """No finished run."""


# ---- one run


def journal_of(run):
    """Rows of train.jsonl, of the MoUE or of the control."""
    for name in ("train", "control"):
        file = run / name / "train.jsonl"
        if file.exists():
            return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return []


def number_of(name, value):
    """A logged number; of a list (one a layer) the mean, of MaxVio the worst; nothing of what is no number."""
    if isinstance(value, list):
        numbers = [number for number in value if isinstance(number, (int, float))]
        value = (max(numbers) if name == "max_vio" else statistics.fmean(numbers)) if numbers else None
    return float(value) if isinstance(value, (int, float)) else None


def averages_of(rows, steps):
    """Means over the last steps of all that is logged per step."""
    last = [row for row in rows if "loss" in row and row["step"] > (1 - LAST) * steps]
    names = dict.fromkeys(name for row in last for name in row if name not in NOT_AVERAGED)
    means = {}
    for name in names:
        values = [value for row in last if (value := number_of(name, row.get(name))) is not None]
        if values:
            means[name] = statistics.fmean(values)
    return means


def read_run(file):
    """A finished run: what it was, its held-out losses by step, its last one, its averages."""
    told = json.loads(file.read_text(encoding="utf-8"))
    if told.get("state") != "finished":
        return None
    rows = journal_of(file.parent)
    curve = [(row["step"], row["held_out"]) for row in rows if row.get("held_out") is not None]
    last = [row for row in rows if row.get("held_out") is not None][-1:]
    steps = told["settings"]["train"]["steps"]
    if not last or last[0]["step"] != steps:
        raise Nothing(f"{file.parent}: finished, but train.jsonl has no held-out loss of step {steps}")
    return {"arm": told["arm"], "seed": told["seed"], "beside": told["beside"], "why": told["why"], "steps": steps,
            "final": last[0]["held_out"], "standard_error": last[0].get("held_out_standard_error"),
            "foreign_share": last[0].get("held_out_foreign_share"), "first": curve[0][1], "curve": curve,
            "seconds": told["seconds"], "averages": averages_of(rows, steps), "programs": told["programs"],
            "warnings": told.get("warnings", []), "settings": told["settings"]}  # fmt: skip


def read_runs(out):
    runs = [read_run(file) for file in sorted(out.glob("*/seed-*/run.json"))]
    runs = [run for run in runs if run]
    if not runs:
        raise Nothing(f"{out} has no finished run yet")
    return runs


# ---- all of them


def summary_of(values):
    """Mean, spread (standard deviation), standard error of the mean, extremes."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"count": len(values), "mean": statistics.fmean(values), "spread": spread,
            "standard_error": spread / math.sqrt(len(values)) if spread is not None else None,
            "least": min(values), "most": max(values)}  # fmt: skip


def verdict_of(difference):
    """Whether the mean difference stands out of its spread, at 95 % and for each arm on its own."""
    count, error = difference["count"], difference["standard_error"]
    if error is None:
        return "one seed: no telling"
    if abs(difference["mean"]) <= T_975[min(count - 2, len(T_975) - 1)] * error:
        return "no difference beyond the spread"
    return "lower than beside" if difference["mean"] < 0 else "higher than beside"


def differences_of(run, other):
    """Of held-out losses at the same steps of the same seed."""
    losses = dict(other["curve"])
    return [(step, loss - losses[step]) for step, loss in run["curve"] if step in losses]


def arm_of(name, runs, by_key):
    mine = sorted((run for run in runs if run["arm"] == name), key=lambda run: run["seed"])
    beside = mine[0]["beside"]
    arm = {"name": name, "why": mine[0]["why"], "beside": beside, "steps": mine[0]["steps"], "seeds": mine,
           "loss": summary_of([run["final"] for run in mine])}  # fmt: skip
    pairs = [(run, by_key[beside, run["seed"]]) for run in mine if (beside, run["seed"]) in by_key]
    if pairs:
        for run, other in pairs:
            run["difference"] = run["final"] - other["final"]
            run["difference_curve"] = differences_of(run, other)
        arm["difference"] = summary_of([run["difference"] for run, _ in pairs])
        arm["verdict"] = verdict_of(arm["difference"])
    shares = [run["foreign_share"] for run in mine if run["foreign_share"] is not None]
    arm["foreign_share"] = statistics.fmean(shares) if shares else None
    names = dict.fromkeys(key for run in mine for key in run["averages"])
    arm["averages"] = {key: statistics.fmean(run["averages"][key] for run in mine if key in run["averages"]) for key in names}
    arm["seconds"] = statistics.fmean(run["seconds"] for run in mine)
    return arm


def unequal(runs, by_key):
    """What makes a comparison unfair: other steps, other rows, other rates than those of the run beside."""
    faults = []
    for run in runs:
        other = by_key.get((run["beside"], run["seed"]))
        mine, theirs = run["settings"]["train"], other["settings"]["train"] if other else {}
        for key in ("steps", "batch", "length", "lr", "schedule", "tokens", "order", "seed") if other else ():
            if mine.get(key) != theirs.get(key):
                faults.append(f"{run['arm']}, seed {run['seed']}: {key} is {mine.get(key)}, beside it {theirs.get(key)}")
    return faults


def aggregate(runs, arena, about, order=()):
    by_key = {(run["arm"], run["seed"]): run for run in runs}
    names = sorted({run["arm"] for run in runs}, key=lambda name: (order.index(name) if name in order else len(order), name))
    commits = sorted({program["commit"] for run in runs for program in run["programs"]})
    warnings = unequal(runs, by_key)
    if len(commits) > 1:
        warnings.append(f"runs of {len(commits)} commits: {', '.join(commit[:12] for commit in commits)}")
    if any(program["changed"] for run in runs for program in run["programs"]):
        warnings.append("some runs were made by a program with uncommitted changes")
    return {"arena": arena, "about": about, "commits": commits, "warnings": warnings,
            "arms": [arm_of(name, runs, by_key) for name in names]}  # fmt: skip


# ---- Markdown


def signed(value):
    return f"{value:+.4f}"


def spread_text(summary, form):
    spread = f" +- {summary['spread']:.4f}" if summary["spread"] is not None else ""
    return form(summary["mean"]) + spread


def markdown(evidence):
    lines = [f"Arena ({evidence['arena']}): {evidence['about']}. Commit {', '.join(c[:12] for c in evidence['commits'])}.", ""]
    head = ["arm", "held-out loss", "beside", "difference", "seeds", "verdict", "foreign", "MaxVio", "dead", "min"]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for arm in evidence["arms"]:
        difference, averages = arm.get("difference"), arm["averages"]
        lines.append("| " + " | ".join([
            f"`{arm['name']}`", spread_text(arm["loss"], "{:.4f}".format), f"`{arm['beside']}`" if arm["beside"] else "",
            spread_text(difference, signed) if difference else "", str(arm["loss"]["count"]), arm.get("verdict", ""),
            f"{arm['foreign_share']:.3f}" if arm["foreign_share"] else "",
            f"{averages['max_vio']:.2f}" if "max_vio" in averages else "",
            f"{averages['dead']:.0f}" if "dead" in averages else "", f"{arm['seconds'] / 60:.1f}",
        ]) + " |")  # fmt: skip
    lines += ["", "Mean +- standard deviation over seeds; differences are taken seed by seed (same tokens, same order); the verdict is a "
              "paired t-test at 95 % of each arm on its own. MaxVio (worst layer; of a MoUE over all its slots, so higher for the same balance) and dead experts: mean of the last tenth of the steps."]  # fmt: skip
    lines += ["", *(f"* `{arm['name']}`: {arm['why']}" for arm in evidence["arms"])]
    if evidence["warnings"]:
        lines += ["", *(f"* Warning: {warning}" for warning in evidence["warnings"])]
    return "\n".join(lines) + "\n"


# ---- pictures, in the house's stylesheets


def style_of(name):
    """The stylesheet of src/report, so that there is one."""
    source = (ROOT / "src" / "report" / name).read_text(encoding="utf-8")
    return re.search(r'kStyle = R"\((.*?)\)";', source, re.DOTALL)[1]


def ticks(low, high, count=6):
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


class Scale:
    """Numbers to pixels; a little wider than its values, never empty."""

    def __init__(self, values, start, end):
        low, high = min(values), max(values)
        room = (high - low) * 0.06 or 0.5 * abs(high) or 1
        self.low, self.high, self.start, self.end = low - room, high + room, start, end

    def __call__(self, value):
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def line(x1, y1, x2, y2, ink="grid"):
    return f'<line class="{ink}" x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}"/>'


def text(x, y, words, anchor="start"):
    return f'<text x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def dot(x, y, radius, hint, ink="m0"):
    return f'<circle class="{ink}" cx="{x:.2f}" cy="{y:.2f}" r="{radius}"><title>{html.escape(hint)}</title></circle>'


def svg(width, height, title, about, body):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" class="moue-svg" role="img" width="{width}" height="{height:.0f}" '
            f'viewBox="0 0 {width} {height:.0f}">\n<title>{html.escape(title)}</title>\n<desc>{html.escape(about)}</desc>\n'
            f'<style>{style_of("svg.cpp")}</style>\n<rect class="paper" width="{width}" height="{height:.0f}"/>\n'
            f'<text class="title" x="12" y="22">{html.escape(title)}</text>\n' + "\n".join(body) + "\n</svg>\n")  # fmt: skip


def differences_picture(evidence):
    """A row for each arm: every seed, the mean, one standard deviation; left of zero is better than the control."""
    arms = [arm for arm in evidence["arms"] if "difference" in arm]
    left, right, top, step = 190, 740, 44, 26
    values = [0.0]
    for arm in arms:
        mean, spread = arm["difference"]["mean"], arm["difference"]["spread"] or 0
        values += [mean - spread, mean + spread, arm["difference"]["least"], arm["difference"]["most"]]
    at, bottom = Scale(values, left, right), top + step * max(1, len(arms))
    body = []
    for tick in ticks(at.low, at.high):
        body += [line(at(tick), top, at(tick), bottom), text(at(tick), bottom + 18, f"{tick:+.4g}" if tick else "0", "middle")]
    body.append(line(at(0), top, at(0), bottom, "axis"))
    for row, arm in enumerate(arms):
        y, difference = top + step * (row + 0.5), arm["difference"]
        body.append(text(left - 10, y + 4, arm["name"], "end"))
        if difference["spread"] is not None:
            body.append(line(at(difference["mean"] - difference["spread"]), y, at(difference["mean"] + difference["spread"]), y, "s0"))
        body += [dot(at(run["difference"]), y, 2.5, f"{arm['name']}, seed {run['seed']}: {run['difference']:+.4f}", "m1")
                 for run in arm["seeds"] if "difference" in run]  # fmt: skip
        body.append(dot(at(difference["mean"]), y, 5, f"{arm['name']}: {spread_text(difference, signed)}"))
    body.append(text((left + right) / 2, bottom + 38, "held-out loss minus that of the arm beside, nats; left is better", "middle"))
    return svg(760, bottom + 52, f"Arena ({evidence['arena']}): what each arm reached beside its control",
               "a large dot is the mean over seeds, a bar one standard deviation, a small dot a seed", body)  # fmt: skip


def curves_picture(evidence):
    """A small panel for each arm: difference over steps, one line a seed."""
    arms = [arm for arm in evidence["arms"] if "difference" in arm]
    width, height, columns = 236, 150, 3
    values = [0.0, *(value for arm in arms for run in arm["seeds"] for _, value in run.get("difference_curve", []))]
    body = []
    for number, arm in enumerate(arms):
        x, y = 12 + number % columns * (width + 10), 40 + number // columns * (height + 10)
        across, up = Scale([0, arm["steps"]], x + 52, x + width), Scale(values, y + height - 26, y + 18)
        body += [text(x + 52, y + 10, arm["name"]), line(across(0), up(0), across(arm["steps"]), up(0), "axis")]
        for tick in ticks(up.low, up.high, 3):
            body += [line(x + 52, up(tick), x + width, up(tick)), text(x + 46, up(tick) + 4, f"{tick:+.3g}" if tick else "0", "end")]
        body.append(text(x + width, y + height - 8, f"{arm['steps']} steps", "end"))
        for run in arm["seeds"]:
            points = " ".join(f"{across(step):.2f},{up(value):.2f}" for step, value in run.get("difference_curve", []))
            body.append(f'<polyline class="s{run["seed"] % 4}" points="{points}"/>')
    rows = -(-max(1, len(arms)) // columns)
    return svg(760, 46 + rows * (height + 10), f"Arena ({evidence['arena']}): the difference over the steps",
               "held-out loss minus that of the arm beside at the same step; one line for each seed", body)  # fmt: skip


def page(evidence):
    head = ["arm", "held-out loss", "spread", "beside", "difference", "spread", "seeds", "verdict", "foreign share"]
    rows = ""
    for arm in evidence["arms"]:
        difference = arm.get("difference", {})
        number = lambda value, form="{:.4f}": f'<td class="number">{form.format(value) if value is not None else ""}</td>'  # noqa: E731
        words = lambda value: f'<td class="text">{html.escape(value or "")}</td>'  # noqa: E731
        rows += ("<tr>" + words(arm["name"]) + number(arm["loss"]["mean"]) + number(arm["loss"]["spread"]) + words(arm["beside"])
                 + number(difference.get("mean"), "{:+.4f}") + number(difference.get("spread")) + number(arm["loss"]["count"], "{}")
                 + words(arm.get("verdict")) + number(arm["foreign_share"], "{:.3f}") + "</tr>\n")  # fmt: skip
    title = html.escape(f"evidence: arena ({evidence['arena']}), {evidence['about']}")
    warnings = "".join(f'<p class="warning">{html.escape(warning)}</p>\n' for warning in evidence["warnings"])
    whys = "".join(f"<tr><th scope=\"row\">{html.escape(arm['name'])}</th><td class=\"text\">{html.escape(arm['why'])}</td></tr>\n"
                   for arm in evidence["arms"])  # fmt: skip
    figures = "".join(f'<figure><div class="scroll">{picture}</div></figure>\n'
                      for picture in (differences_picture(evidence), curves_picture(evidence)))  # fmt: skip
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, '
            f'initial-scale=1">\n<title>{title}</title>\n<style>{style_of("html.cpp")}</style>\n</head>\n<body>\n<main>\n'
            f'<h1>{title}</h1>\n{warnings}{figures}<h2>Arms</h2>\n<div class="scroll"><table><thead><tr>'
            + "".join(f'<th scope="col">{name}</th>' for name in head)
            + f"</tr></thead><tbody>\n{rows}</tbody></table></div>\n<h2>Why</h2>\n<div class=\"scroll\"><table><tbody>\n{whys}"
            "</tbody></table></div>\n</main>\n</body>\n</html>\n")  # fmt: skip


def write(out, arena, table):
    """Writes report.json, .md, .svg, .html; gives the Markdown."""
    evidence = aggregate(read_runs(out), arena, table["about"], [arm["name"] for arm in table["arm"]])
    (out / "report.json").write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")
    (out / "report.md").write_text(markdown(evidence), encoding="utf-8")
    (out / "report.svg").write_text(differences_picture(evidence), encoding="utf-8")
    (out / "report.html").write_text(page(evidence), encoding="utf-8")
    return markdown(evidence)
