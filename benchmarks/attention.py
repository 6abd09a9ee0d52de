"""Attention: the book's against PyTorch's, in time and in memory, and the ladder to it.

Causal, float32, four heads. A multiplication and an addition count as two operations;
masked scores do not count, although a part of them is computed by everybody.
"""

import itertools
import platform
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from .pipes import Client, WorkerError
from .race import each, missing_lines
from .summary import ratio, spread, summary

N_HEAD = 4
RESULTS = ("o", "dq", "dk", "dv")
PRODUCTS = {"forward": 2, "both": 7}  # of (N x d) with (N x N); backward recomputes one


def operations(n: int, d: int, what: str) -> int:
    """Useful floating-point operations of all heads, softmax left out."""
    pairs = n * (n + 1) // 2
    return PRODUCTS[what.removeprefix("naive_")] * 2 * d * pairs * N_HEAD


def milliseconds(seconds: list[float]) -> dict:
    """Summary of the rounds of a call."""
    return summary([1e3 * s for s in seconds])


def gflops(n: int, d: int, what: str, seconds: list[float]) -> float:
    """Useful operations a second in the best round, in units of 1e9."""
    return operations(n, d, what) / min(seconds) / 1e9


def worker(kind: str, threads: int = 1, variant: str | None = None) -> Client:
    """One side, in a process of its own; with a variant of `variants`."""
    arguments = (kind, "--threads", str(threads))
    arguments += ("--variant", variant) if variant else ()
    return Client("benchmarks.attention_worker", *arguments, threads=threads)


def workers(
    stack: ExitStack, threads: int, failed: dict, variant: str | None = None
) -> dict[str, Client]:
    """Both sides, ready."""
    clients = {}
    for kind in ("book", "torch"):
        clients[kind] = stack.enter_context(worker(kind, threads, variant))
    each(clients, failed, lambda kind, c: c.wait())
    return clients


def repeats(client: Client, what: str, least: float = 0.05) -> int:
    """How often a call must be repeated to last long enough; a first call compiles."""
    client.time(what=what)
    return max(1, round(least / client.time(what=what)["seconds"]))


def in_turns(clients, what: str, rounds: int, failed: dict) -> dict:
    """Seconds of each side's rounds, taken in turn."""
    again = each(clients, failed, lambda kind, c: repeats(c, what))
    rows = [
        each(clients, failed, lambda k, c: c.time(what=what, repeat=again[k]))
        for _ in range(rounds)
    ]
    return {kind: [row[kind]["seconds"] for row in rows] for kind in clients}


def compare(n, d, threads, rounds, variant=None) -> list[dict]:
    """Both sides at one size: forward, and forward with backward."""
    failed, found = {}, []
    with ExitStack() as stack:
        clients = workers(stack, threads, failed, variant)
        each(clients, failed, lambda kind, c: c.load(n=n, d=d))
        for what in ("forward", "both"):
            seconds = in_turns(clients, what, rounds, failed)
            row = {"n": n, "d": d, "threads": threads, "what": what, "missing": failed}
            row["milliseconds"] = {k: milliseconds(s) for k, s in seconds.items()}
            row["gflops"] = {k: gflops(n, d, what, s) for k, s in seconds.items()}
            if len(seconds) == 2:
                row["book_over_torch"] = ratio(seconds["book"], seconds["torch"])
            found.append(row)
    return found


def agreement(n: int = 300, d: int = 16) -> dict:
    """The largest difference between both sides' o, dq, dk and dv at an odd size."""
    failed = {}
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        clients = workers(stack, 1, failed)
        paths = {kind: str(Path(folder) / f"{kind}.npz") for kind in clients}

        def results(kind, client):
            client.load(n=n, d=d)
            client.save(what="both", path=paths[kind])
            return list(np.load(paths[kind]).values())

        found = each(clients, failed, results)
    if len(found) < 2:
        return {"missing": failed}
    pairs = zip(found["book"], found["torch"], strict=True)
    gaps = [float(np.abs(a - b).max()) for a, b in pairs]
    return {"n": n, "d": d, "largest": dict(zip(RESULTS, gaps, strict=True))}


RUNGS = (  # name, call, tile (None: the default), threads, variant
    ("naive", "naive_", None, 1, "exp"),
    ("tiles of 4", "", 4, 1, "exp"),
    ("tuned tile", "", None, 1, "exp"),
    ("exp in vectors", "", None, 1, None),
    ("two threads", "", None, 2, None),
)


def ladder(n: int, d: int, rounds: int, threads: int) -> dict:
    """The book's own versions, from the plainest on; each runs by itself."""
    rungs, failed = [], {}
    for name, *how in RUNGS:
        if how[2] > threads:
            failed[name] = "this machine has one core"
            continue
        try:
            rungs.append({"name": name} | rung(n, d, rounds, *how))
        except WorkerError as error:
            failed[name] = str(error)
    return {"n": n, "d": d, "rungs": rungs, "missing": failed}


def rung(n, d, rounds, prefix, tile, threads, variant) -> dict:
    """Milliseconds and operations a second of one version, forward and both."""
    found = {}
    with worker("book", threads, variant) as client:
        client.load(n=n, d=d, tile=tile)
        for what in ("forward", "both"):
            times = repeats(client, prefix + what)
            runs = (
                client.time(what=prefix + what, repeat=times) for _ in range(rounds)
            )
            seconds = [run["seconds"] for run in runs]
            found[what] = {"milliseconds": milliseconds(seconds)}
            found[what]["gflops"] = gflops(n, d, what, seconds)
    return found


def extra_memory(n: int, d: int, naive_n: int) -> list[dict]:
    """Peak extra bytes of each side, each call in a fresh process, once warmed up."""
    calls = [(kind, what, n) for kind in ("book", "torch") for what in PRODUCTS]
    calls += [("book", f"naive_{what}", naive_n) for what in PRODUCTS]
    rows = []
    for kind, what, size in calls:
        row = {"who": kind, "what": what, "n": size, "d": d}
        try:
            with worker(kind) as client:
                client.load(n=64, d=d)
                client.time(what=what)
                client.load(n=size, d=d)
                row |= client.memory(what=what)
        except WorkerError as error:
            row["missing"] = str(error)
        rows.append(row)
    return rows


def measure(quick: bool, threads: int) -> dict:
    """Everything about attention; `threads` is how many the machine can give."""
    sizes = (256, 1024) if quick else (256, 1024, 4096, 16384)
    counts = (1,) if quick or threads < 2 else (1, 2)
    widths = (16,) if quick else (16, 64)
    rows = []
    for count, d, n in itertools.product(counts, widths, sizes):
        rounds = 3 if quick or n > 4096 else 7
        rows += compare(n, d, count, rounds)
    n = 512 if quick else 4096
    memory = extra_memory(1024, 16, 512) if quick else extra_memory(16384, 64, 4096)
    return {
        "agreement": agreement(),
        "rows": rows,
        "ladder": [ladder(n, d, 3, threads) for d in widths],
        "memory": memory,
    }


def measure_avx2(quick: bool) -> dict:
    """Both sides held to vectors of 32 bytes; x86 only."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise WorkerError("AVX2 is an extension of x86")
    sizes = ((1024, 16),) if quick else ((1024, 16), (4096, 16), (1024, 64), (4096, 64))
    rounds = 3 if quick else 5
    rows = [row for n, d in sizes for row in compare(n, d, 1, rounds, "avx2")]
    return {"rows": rows}


def table(result: dict) -> str:
    """The results as lines of text."""
    lines = [*rows_lines(result), *ladder_lines(result), *memory_lines(result)]
    return "\n".join(lines)


def table_avx2(result: dict) -> str:
    """The results as lines of text."""
    return "\n".join(["Both with AVX2 only.", *rows_lines(result)])


def rows_lines(result: dict) -> list[str]:
    """The comparison as lines of text."""
    lines = ["Attention, causal, float32, 4 heads: ms, median (range); GFLOP/s; ratio"]
    for row in result["rows"]:
        name = f"d {row['d']}, N {row['n']}, {row['what']}, {row['threads']} thread(s)"
        for kind, ms in row["milliseconds"].items():
            line = f"  {name:36} {kind:6} {spread(ms, 3):30}"
            lines.append(line + f" {row['gflops'][kind]:6.1f}")
        if "book_over_torch" in row:
            lines.append(f"  {name:36} book / torch {spread(row['book_over_torch'])}")
        lines += missing_lines(row["missing"])
    return lines


def ladder_lines(result: dict) -> list[str]:
    """The ladders as lines of text."""
    lines = []
    for found in result["ladder"]:
        lines.append(f"The ladder at N {found['n']}, d {found['d']}: ms, GFLOP/s")
        for r in found["rungs"]:
            for what in ("forward", "both"):
                ms, rate = spread(r[what]["milliseconds"]), r[what]["gflops"]
                lines.append(f"  {r['name']:12} {what:8} {ms:30} {rate:6.1f}")
        lines += missing_lines(found["missing"])
    return lines


def memory_lines(result: dict) -> list[str]:
    """The memory table as lines of text."""
    lines = ["Peak extra memory, MB, of which the results themselves:"]
    for row in result["memory"]:
        name = f"  {row['who']:6} {row['what']:14} N {row['n']:6} d {row['d']:3}"
        if "missing" in row:
            lines.append(f"{name} MISSING, {row['missing']}")
        else:
            size, results = row["bytes"] / 1e6, row["results"] / 1e6
            lines.append(f"{name} {size:8.1f} {results:8.1f}")
    return lines
