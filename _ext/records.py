"""What runs of the chapters and of the tests leave behind for the status page.

`chapters.json` holds the run time of each notebook, `checks.json` how many checks of
each file passed; both lie in `_build/status`, beside a digest of what was run.
"""

import datetime
import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path


def folder(root):
    """`_build/status` of the book, whose source may be the copy in `_build/book`."""
    root = Path(root).resolve()
    build = root.parent if root.parent.name == "_build" else root / "_build"
    return build / "status"


def load(root, name):
    """The records of one kind, by file; empty if there are none."""
    path = folder(root) / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def save(root, name, records):
    """Add records to those that are there."""
    path = folder(root) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(load(root, name) | records, indent=1, sort_keys=True)
    path.write_text(text, encoding="utf-8")


def digest(path):
    """Tells whether a file is still what was run: of a notebook, its code counts."""
    text = Path(path).read_text("utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        code = ("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        text = "\0".join(code)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def circumstances():
    """Day, processor and versions of a run; nothing that names the machine."""
    return {
        "day": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": cores(),
        "python": platform.python_version(),
        "numba": version("numba"),
        "numpy": version("numpy"),
    }


def cores():
    """How many cores this process may use, or has, where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor():
    """The processor's own name, where the system tells it, or its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def record_run(root, path, seconds):
    """Keep how long a notebook took to run."""
    run = {"seconds": round(seconds, 1), "digest": digest(path)} | circumstances()
    save(root, "chapters", {path.name: run})


def record_checks(root, outcomes):
    """Keep how many checks of each file passed, failed and were skipped.

    outcomes: pairs of a file, relative to the root, and "passed", "failed", "skipped".
    """
    counts = {}
    for file, outcome in outcomes:
        empty = {"passed": 0, "failed": 0, "skipped": 0}
        counts.setdefault(file, empty)[outcome] += 1
    about = circumstances()
    for file, count in counts.items():
        count |= {"digest": digest(Path(root, file))} | about
    save(root, "checks", counts)
