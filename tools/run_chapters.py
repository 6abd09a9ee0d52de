"""Execute chapter notebooks in order and store their outputs, in place.

    python tools/run_chapters.py chapters/*.ipynb

What is stored does not depend on when or how often it was run: no time stamps, no
widget state, counts from 1, stable cell ids; only measured numbers can differ. With
--keep they are those of the run before, if nothing else in the notebook has changed.
"""

import argparse
import hashlib
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "_ext"))
from records import record_run  # noqa: E402

KEEP = {"tags", "mystnb", "jupyter", "slideshow"}
MEASURED = "nbval-ignore-output"  # the tag of cells whose numbers are measured
QUIET = {"TQDM_DISABLE": "1", "PYTHON_COLORS": "0", "OPENBLAS_NUM_THREADS": "1"}


def normalise(notebook):
    """Drop what changes from run to run; give every cell a stable, unique id."""
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen = set()
    for cell in notebook.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in KEEP}
        code_of_solution = "solution" in cell.metadata.get("tags", [])
        if code_of_solution or "{solution-start}" in cell.source:
            cell.metadata["jupyter"] = {"source_hidden": True}  # folded in Jupyter
        if cell.get("id") is None or cell.id in seen:
            text = f"{cell.cell_type}{cell.source}{len(seen)}"
            cell.id = hashlib.sha256(text.encode()).hexdigest()[:8]
        seen.add(cell.id)
        for output in cell.get("outputs", []):
            output.pop("transient", None)
            if "metadata" in output:
                output.metadata = {}
    return notebook


def keep_measurements(notebook, before):
    """Take all cells from `before`, if they differ in measured outputs at most."""

    def told(found):
        cells = (dict(cell) for cell in found.cells)
        return [
            cell | {"outputs": []}
            if MEASURED in cell["metadata"].get("tags", [])
            else cell
            for cell in cells
        ]

    if told(notebook) == told(before):
        notebook.cells = before.cells


def execute(path, keep=False):
    """Run one notebook from its own folder and write it, normalised, in its place."""
    notebook = nbformat.read(path, as_version=4)
    before = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=1800,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--log-level=40"],  # errors only
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute(env=os.environ | QUIET)
    normalise(notebook)
    if keep:
        keep_measurements(notebook, before)
    nbformat.write(notebook, path)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    help_ = "keep the times that are stored, if nothing else has changed"
    arguments.add_argument("--keep", action="store_true", help=help_)
    arguments.add_argument("notebooks", type=Path, nargs="+")
    args = arguments.parse_args()
    for path in args.notebooks:
        if not path.is_file():
            arguments.error(f"there is no notebook {path}")
    total = len(args.notebooks)
    for i, path in enumerate(args.notebooks, 1):
        print(f"[{i}/{total}] {path} ... ", end="", flush=True)
        began = time.perf_counter()
        try:
            execute(path, args.keep)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            print(f"failed\n{error}", file=sys.stderr)
            return 1
        seconds = time.perf_counter() - began
        record_run(ROOT, path, seconds)
        print(f"{seconds:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
