"""How long a newcomer waits: from the command in a fresh copy to the first loss."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .pipes import ROOT

LOSS = re.compile(rb"loss\D{0,20}\d+\.\d")
STEPS = 1000


def fresh_copy(folder: Path) -> Path:
    """The package and its text, without any compiled file; its directory."""
    ignore = shutil.ignore_patterns("__pycache__", "*.partial")
    shutil.copytree(ROOT / "microgpt", folder / "microgpt", ignore=ignore)
    shutil.copy(ROOT / "input.txt", folder)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """This process's settings, one thread, progress shown, no cache from elsewhere."""
    ours = {name: x for name, x in os.environ.items() if name != "TQDM_DISABLE"}
    threads = {name: "1" for name in ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return ours | threads | {"XDG_CACHE_HOME": str(folder / "cache")}


def first_run(folder: Path) -> dict:
    """Seconds until the first loss is seen, and until the command ends."""
    command = [sys.executable, "-m", "microgpt", "--steps", str(STEPS)]
    began, seen, text = time.perf_counter(), None, b""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        while part := process.stdout.read1():
            text += part
            if seen is None and LOSS.search(text):
                seen = time.perf_counter() - began
    if process.returncode:
        return {"error": f"exit code {process.returncode}: {text[-200:]!r}"}
    return {"first_loss": seen, "whole": time.perf_counter() - began}


def measure(quick: bool) -> dict:
    """One cold run, then warm ones with the kernels that it left in the cache."""
    with tempfile.TemporaryDirectory() as folder:
        copy = fresh_copy(Path(folder))
        cold = first_run(copy)
        return {
            "steps": STEPS,
            "cold": cold,
            "warm": [first_run(copy) for _ in range(1 if quick else 3)],
        }


def table(result: dict) -> str:
    """The results as lines of text."""
    lines = [f"Start to first loss, and the whole of {result['steps']} steps, seconds"]
    for name, runs in (("cold", [result["cold"]]), ("warm", result["warm"])):
        for run in runs:
            told = run.get("error") or f"{run['first_loss']:.2f} {run['whole']:.2f}"
            lines.append(f"  {name:8} {told}")
    return "\n".join(lines)
