"""Where a training step spends its time, by a count and by a clock.

What the kernels do is counted (`counting`); each is then timed alone, in a compiled
loop, on arrays whose sizes the compiler knows as it knows them in the step. A kernel
cannot be faster than the unit of the machine that it keeps busiest: the arithmetic, the
divider, or the way to its data. What lies between the three columns is what holds it.
"""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

import microgpt
from microgpt import matrix, training

from .clock import seconds
from .pipes import ROOT, WorkerError
from .problem import Problem, Setting

POSITIONS = 7  # of the document: the mean of the names, and no other size of the model
LOOP = """
def loop(r, T, times):
    total = 0.0
    for _ in range(times):
        {call}
        barrier()
    return total
"""


@intrinsic
def barrier(context):
    """Nothing, of which the compiler must think that it changes all memory."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(ir.InlineAsm(kind, "", "~{memory}", side_effect=True), [])
        return context.get_dummy_value()

    return types.void(), generate


def count_calls(setting: dict, document: int) -> tuple[list[dict], dict]:
    """What `counting` finds, in an uncompiled process: calls, and their arrays."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.counting"]
        command += [folder, json.dumps(setting), str(document)]
        plain = os.environ | {"NUMBA_DISABLE_JIT": "1"}
        done = subprocess.run(command, env=plain, cwd=ROOT, capture_output=True)
        if done.returncode:
            raise WorkerError(done.stderr.decode().strip().splitlines()[-1])
        calls = json.loads((Path(folder) / "calls.json").read_text("utf-8"))
        return calls, dict(np.load(Path(folder) / "arrays.npz"))


class Replay:
    """A recorded call as a compiled loop; the arrays are fields of one record."""

    def __init__(self, call: dict, arrays: dict, room: int):
        self.names, self.fields, self.values = {}, [], []
        self.arrays, self.room = arrays, room
        module = importlib.import_module(call["module"])
        self.names |= {"kernel": getattr(module, call["kernel"]), "barrier": barrier}
        self.names |= {"part": matrix.part}
        arguments = ", ".join(self.expression(x) for x in call["arguments"])
        done = "total += " if call["returns"] else ""
        exec(LOOP.format(call=f"{done}kernel({arguments})"), self.names)
        own = {"error_model": "numpy", "_nrt": False}
        self.loop = numba.njit(**own)(self.names["loop"])
        self.record = np.zeros(1, np.dtype((np.record, self.fields)))[0]
        for (name, *_), x in zip(self.fields, self.values, strict=True):
            self.record[name][: len(x)] = x

    def expression(self, x: dict) -> str:
        """An argument as source text."""
        if "tuple" in x:
            module, _, name = x["tuple"].rpartition(".")
            self.names[name] = getattr(importlib.import_module(module), name)
            return f"{name}({', '.join(self.expression(y) for y in x['members'])})"
        if "scalar" in x:
            name = f"scalar{len(self.names)}"
            number = np.float32 if x["float32"] else lambda scalar: scalar
            self.names[name] = number(x["scalar"])
            return name
        value = self.arrays[x["array"]]
        value = value if x["turned"] else value.T  # axes in reverse, order "C"
        long = value.shape[0] == POSITIONS
        shape = (self.room if long else value.shape[0], *value.shape[1:])
        name = f"field{len(self.fields)}"
        self.fields.append((name, value.dtype, shape))
        self.values.append(value)
        text = f"r.{name}.T"
        text = f"part({text}, None, 0, T)" if long else text
        return text + ".T" if x["turned"] else text

    def seconds(self) -> float:
        """Seconds of a call; compiles at first."""
        self.loop(self.record, POSITIONS, 1)
        times = 1000  # so that the call from Python does not count
        return seconds(lambda: self.loop(self.record, POSITIONS, times), 20) / times


def shape_of(call: dict, arrays: dict) -> str:
    """Kernel and arguments, as a key: calls of equal keys take equal times."""

    def key(x):
        if "array" in x:
            array = arrays[x["array"]]
            return (*array.shape, str(array.dtype), x["turned"])
        return tuple(map(key, x["members"])) if "tuple" in x else ()

    return repr((call["kernel"], *map(key, call["arguments"])))


def bytes_of(x: dict) -> int:
    """Bytes of the arrays of an argument."""
    return sum(map(bytes_of, x["members"])) if "tuple" in x else x.get("bytes", 0)


def units(counts: dict, size: int, limits: dict) -> dict[str, float]:
    """Seconds for which each unit of the machine is busy, if it never waits."""
    level = "L1" if size <= limits["caches"].get("L1", 0) else "L2"
    bandwidth = limits["gbytes"].get(level) or limits["gbytes"]["memory"]
    rates = limits["giga"]
    return {
        "arithmetic": (counts.get("flop", 0) + counts.get("compare", 0))
        / (1e9 * limits["gflops"]["float32"]),
        "wires": size / (1e9 * bandwidth),
        "divider": sum(counts.get(kind, 0) / (1e9 * rates[kind]) for kind in rates),
    }


def kernels(calls: list[dict], arrays: dict, room: int, limits: dict) -> list[dict]:
    """A row for each kernel: calls, counts, bytes, and its three times."""
    rows, known = {}, {}
    for call in calls:
        key = shape_of(call, arrays)
        if key not in known:
            known[key] = Replay(call, arrays, room).seconds()
        size = sum(bytes_of(x) for x in call["arguments"])
        row = rows.setdefault(call["kernel"], dict.fromkeys(COLUMNS, 0))
        for kind in COUNTS:
            row[kind] += call["counts"].get(kind, 0)
        row["calls"] += 1
        row["bytes"] += size
        busy = units(call["counts"], size, limits)
        for unit, spent in busy.items():
            row[unit] += spent
        row["bound"] += max(busy.values())
        row["alone"] += known[key]
    return [{"kernel": name} | row for name, row in rows.items()]


COUNTS = ("flop", "compare", "truediv", "sqrt", "exp", "log")
UNITS = ("arithmetic", "wires", "divider")
COLUMNS = (*COUNTS, *UNITS, "calls", "bytes", "bound", "alone")


def whole(problem: Problem, document: int) -> dict:
    """Seconds of a step on this document alone: as called, compiled part, packing."""
    corpus, model = problem.corpus, problem.model("float32")
    corpus = dataclasses.replace(corpus, docs=[corpus.docs[document]])
    few, many = 100, 1000  # steps; a short round is seldom disturbed
    recipe = training.Recipe(
        steps=few, lr=1e-6, beta1=0.85, beta2=0.99, eps=1e-8, batch_size=1, threads=1
    )
    state, losses = training.training_state(model), np.zeros(few)

    def pack():
        return training.pack_documents(corpus, 0, recipe, few, 16)

    documents = pack()

    def steps():
        training.run_steps(state, recipe, 0, documents, losses)

    return {
        "called": seconds(lambda: microgpt.train(model, corpus, many, lr=1e-6)) / many,
        "compiled": seconds(steps) / few,
        "packing": seconds(pack) / few,
    }


def measure(limits: dict) -> dict:
    """The step on the first name of POSITIONS - 1 letters: whole, and by kernels."""
    problem = Problem(Setting())
    lengths = [len(ids) - 1 for ids in problem.tokens(0, 200)]
    document = lengths.index(POSITIONS)
    calls, arrays = count_calls({}, document)
    rows = kernels(calls, arrays, problem.setting.block_size, limits)
    rows.sort(key=lambda row: -row["alone"])
    return {"positions": POSITIONS, "rows": rows, "step": whole(problem, document)}


def table(result: dict) -> str:
    """The results as lines of text."""
    lines = [
        "One step, kernel by kernel: calls, operations, divisions and roots, exps,"
    ]
    lines.append("bytes; microseconds at the machine's limit, alone")
    for r in result["rows"]:
        counts = f"{r['calls']:3} {r['flop']:8.0f} {r['truediv'] + r['sqrt']:6.0f}"
        counts += f" {r['exp']:5.0f} {r['bytes']:8}"
        times = f"{1e6 * r['bound']:8.3f} {1e6 * r['alone']:8.3f}"
        busiest = max(UNITS, key=lambda unit: r[unit])
        lines.append(f"  {r['kernel']:22} {counts} {times} {busiest}")
    sums = (1e6 * sum(r[key] for r in result["rows"]) for key in ("bound", "alone"))
    lines.append("  sum {:.3f} {:.3f}".format(*sums))
    parts = (f"{name} {1e6 * x:.3f}" for name, x in result["step"].items())
    return "\n".join([*lines, "  whole step: " + ", ".join(parts)])
