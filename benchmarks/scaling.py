"""How a step's time grows with length, width, layers, batch and threads."""

from . import race
from .summary import spread

FULL = {"documents": "full"}
AXES = {  # what grows: its values, the other settings, of which each takes part
    "block_size": ((16, 64, 256), FULL),
    "n_embd": ((16, 32, 64, 128), FULL),
    "n_layer": ((1, 2, 4), FULL),
    "batch_size": ((1, 4, 16, 64), {}),
    "threads": ((1, 2), {"batch_size": 32}),
}
NAMES = ("book_f32", "jax_scan_f32", "torch_eager_f32")


def steps_for(setting: dict) -> int:
    """So many that the start of a run does not count, in about a second a round."""
    size = setting.get("block_size", 16) / 16 * setting.get("batch_size", 1)
    size *= setting.get("n_layer", 1) * setting.get("n_embd", 16) / 16
    return max(200, int(1000 / size))


def measure(quick: bool, threads: int) -> dict:
    """A small race for every point of every axis."""
    points = []
    for axis, (values, base) in AXES.items():
        values = values[:2] if quick else values
        for value in values:
            if axis == "threads" and value > threads:
                continue
            setting = base | {axis: value}
            points.append({"axis": axis, "value": value} | point(setting, quick))
    return {"points": points}


def point(setting: dict, quick: bool) -> dict:
    """A race of few rounds at one setting."""
    names = NAMES[:1] if quick else NAMES
    title = ", ".join(f"{k} {v}" for k, v in setting.items())
    rounds = 3 if quick else 5
    return race.run(race.Race(title, names, setting, steps_for(setting), rounds))


def table(result: dict) -> str:
    """The results as lines of text."""
    lines = ["Scaling: microseconds a step, median (range)"]
    for p in result["points"]:
        lines.append(f"  {p['title']}")
        for name, row in p["rows"].items():
            lines.append(f"    {name:20} {spread(row['microseconds'])}")
        lines += [f"  {line}" for line in race.missing_lines(p["missing"])]
    return "\n".join(lines)
