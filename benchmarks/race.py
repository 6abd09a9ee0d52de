"""Training races: contenders are checked against each other, then timed in turns."""

import dataclasses
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from . import contenders
from .pipes import Client, WorkerError
from .problem import Problem, Setting
from .summary import ratio, spread, summary

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
LEAST_SECONDS = 0.2  # of each measurement; shorter runs are repeated


@dataclasses.dataclass(frozen=True)
class Race:
    """Who runs what: contenders by name, a setting, the steps of a run, the rounds."""

    title: str
    names: tuple[str, ...]
    setting: dict
    steps: int = 1000
    rounds: int = 7

    def steps_for(self, name: str) -> int:
        """Fewer steps for a contender that takes tens of milliseconds for one."""
        return min(self.steps, 20) if name.startswith("scalars") else self.steps


def documents_to_check(problem: Problem) -> list[int]:
    """Numbers of the first document, and the shortest and longest of the first 200."""
    lengths = [len(ids) for ids in problem.tokens(0, 200)]
    return sorted({0, int(np.argmin(lengths)), int(np.argmax(lengths))})


def expected(setting: Setting, documents: list[int]) -> dict:
    """Loss and gradients by the book in float64, as `Worker.check` stores them."""
    problem = Problem(setting)
    problem.disturb()
    model, out = problem.model("float64"), {}
    for number in documents:
        loss, grads = model.loss_and_grads(problem.tokens(number, 1)[0])
        out |= {f"{number}/{name}": x for name, x in grads.items()}
        out[f"{number}/loss"] = loss
    return out


def largest_gap(a, b) -> float:
    """The largest absolute difference; infinite where something is not a number."""
    return float(np.nan_to_num(np.abs(a - b).max(), nan=np.inf))


def difference(found, wanted: dict, dtype: str) -> dict:
    """The largest absolute differences of loss and gradients, and whether they pass.

    A gradient's is measured in units of the largest entry of all gradients.
    """
    if set(found) != set(wanted):
        raise WorkerError(f"gradients differ in name: {set(found) ^ set(wanted)}")
    gaps = {k: largest_gap(found[k], x) for k, x in wanted.items()}
    losses = [gap for k, gap in gaps.items() if k.endswith("/loss")]
    grads = {k: gap for k, gap in gaps.items() if not k.endswith("/loss")}
    scale = max(float(np.abs(wanted[k]).max()) for k in grads)
    where = max(grads, key=grads.get)
    worst = max(*losses, grads[where] / scale)
    result = {"loss": max(losses), "gradient": grads[where] / scale, "where": where}
    return result | {"same": bool(worst <= TOLERANCE[dtype])}


def start(names, setting: dict, stack: ExitStack, missing: dict) -> dict[str, Client]:
    """A worker for every contender that is installed; the others go into `missing`."""
    clients = {}
    for name in names:
        absent = contenders.missing(name)
        if absent:
            missing[name] = "not installed: " + ", ".join(absent)
            continue
        arguments = ("benchmarks.worker", name, "--setting", json.dumps(setting))
        client = Client(*arguments, threads=setting.get("threads", 1))
        clients[name] = stack.enter_context(client)
        each({name: client}, missing, lambda name, c: c.wait())
    return {name: c for name, c in clients.items() if name not in missing}


def each(clients: dict[str, Client], failed: dict, action) -> dict:
    """`action(name, client)` for each; one that fails is dropped, its reason kept."""
    results = {}
    for name, client in list(clients.items()):
        try:
            results[name] = action(name, client)
        except WorkerError as error:
            failed[name] = str(error)
            del clients[name]
    return results


def check(names, setting: dict | None = None) -> dict:
    """Every contender's loss and gradients against the book's, on the same weights."""
    setting, missing = setting or {}, {}
    base = Setting(**setting)
    documents = documents_to_check(Problem(base))
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        clients = start(names, setting, stack, missing)
        wanted = expected(base, documents) if clients else {}

        def compare(name, client):
            path = str(Path(folder) / f"{name}.npz")
            client.check(documents=documents, path=path)
            return difference(np.load(path), wanted, contenders.entry(name)[1])

        rows = each(clients, missing, compare)
    return {"documents": documents, "rows": rows, "missing": missing}


def repeats(client: Client, steps: int) -> int:
    """How often a run must be repeated to last long enough to be measured."""
    return max(1, round(LEAST_SECONDS / client.run(steps=steps)["seconds"]))


def run(race: Race) -> dict:
    """Start and compile one by one, then `rounds` times each of them once, in turn."""
    failed, problem = {}, Problem(Setting(**race.setting))
    with ExitStack() as stack:
        clients = start(race.names, race.setting, stack, failed)
        steps = {name: race.steps_for(name) for name in clients}
        ready = each(clients, failed, lambda name, c: c.prepare(steps=steps[name]))
        again = each(clients, failed, lambda name, c: repeats(c, steps[name]))

        def lap(name, client):
            return client.run(steps=steps[name], repeat=again[name])

        rounds = [each(clients, failed, lap) for _ in range(race.rounds)]
    rows = {name: row(name, ready, rounds, steps[name]) for name in clients}
    for name, found in rows.items():
        found["positions_per_step"] = positions(problem, steps[name])
    about = dataclasses.asdict(problem.setting)
    del about["dtype"]
    known = {"title": race.title, "setting": about}
    return known | {"rows": with_ratios(rows), "missing": failed}


def positions(problem: Problem, steps: int) -> float:
    """How many positions a step predicts, on average."""
    documents = problem.tokens(0, steps * problem.setting.batch_size)
    return sum(len(ids) - 1 for ids in documents) / steps


def row(name: str, ready: dict, rounds: list[dict], steps: int) -> dict:
    """What is kept of a contender's rounds."""
    losses = rounds[0][name]["losses"]
    return {
        "microseconds": summary([1e6 * r[name]["seconds"] / steps for r in rounds]),
        "start_seconds": ready[name]["start"],
        "compile_seconds": ready[name]["seconds"],
        "steps": steps,
        "loss_first": losses[0],
        "loss_first_20": float(np.mean(losses[:20])),
        "loss_first_100": float(np.mean(losses[:100])),
        "loss_last_100": float(np.mean(losses[-100:])),
    }


def with_ratios(rows: dict) -> dict:
    """Each row's time over that of the book in the same dtype, round by round."""
    for name, found in rows.items():
        base = rows.get("book" + name[-4:])
        if base:
            rounds = (found["microseconds"]["rounds"], base["microseconds"]["rounds"])
            found["times_the_book"] = ratio(*rounds)
    return rows


def table(result: dict) -> str:
    """A race as lines of text, the fastest first."""
    lines = [f"{result['title']}: microseconds a step, median (range), times the book"]
    B = result["setting"]["batch_size"]
    rows = result["rows"].items()
    for name, found in sorted(rows, key=lambda r: r[1]["microseconds"]["median"]):
        line = f"  {name:20} {spread(found['microseconds']):32}"
        if "times_the_book" in found:
            line += f" {spread(found['times_the_book']):28}"
        if B > 1:
            line += f" {found['microseconds']['median'] / B:.2f} a document,"
        lines.append(line + f" loss {found['loss_first_20']:.4f}")
    return "\n".join(lines + missing_lines(result["missing"]))


def missing_lines(missing: dict) -> list[str]:
    """One line for each contender that did not take part."""
    return [f"  {name:20} MISSING, {why}" for name, why in missing.items()]


def check_table(result: dict) -> str:
    """The check as lines of text."""
    lines = ["The same loss and gradients? Largest difference to the book in float64:"]
    for name, gap in result["rows"].items():
        verdict = "ok" if gap["same"] else "DIFFERS"
        gaps = f"loss {gap['loss']:.1e}, gradient {gap['gradient']:.1e}"
        lines.append(f"  {name:20} {gaps} ({gap['where']}) {verdict}")
    return "\n".join(lines + missing_lines(result["missing"]))
