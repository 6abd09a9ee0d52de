"""The status page: what was run and checked, when, and on what.

`<!-- status -->` in `status.md` is replaced by tables from the records of `make book`,
`make run` and `make test`. What was not recorded is said to be so.
"""

import platform
from importlib.metadata import version
from pathlib import Path

import records

MARK = "<!-- status -->"
PACKAGES = "numpy numba microgpt jupyter-book sphinx myst-nb matplotlib".split()
NOTHING = "not recorded"


def is_current(record, path):
    return record and record["digest"] == records.digest(path)


def write_checks(record, path):
    """In words, how the checks of a file went."""
    if not is_current(record, path):
        return NOTHING if not record else "recorded for another version"
    skipped = f", {record['skipped']} skipped" if record["skipped"] else ""
    failed = f", **{record['failed']} failed**" if record["failed"] else ""
    return f"{record['passed']} passed{failed}{skipped}"


def write_seconds(record, path):
    if not is_current(record, path):
        return NOTHING if not record else "recorded for another version"
    return f"{record['seconds']:.1f} s"


def write_circumstances(runs):
    """One sentence for each processor and set of versions that was used."""
    found = {}
    for run in runs:
        key = tuple(run[k] for k in ("processor", "cores", "python", "numba", "numpy"))
        found.setdefault(key, set()).add(run["day"])
    for key, days in found.items():
        name, cores, python, numba, numpy = key
        yield (
            f"On {', '.join(sorted(days))}: {name}, {cores} core"
            f"{'' if cores == 1 else 's'}; Python {python}, numba {numba}, "
            f"NumPy {numpy}."
        )


def write_status(root):
    """The page's tables in Markdown."""
    root = Path(root)
    runs, checks = records.load(root, "chapters"), records.load(root, "checks")
    lines = [
        "## Chapters",
        "",
        "| chapter | run time | cells compared |",
        "|---|---|---|",
    ]
    for path in sorted(root.glob("chapters/*.ipynb")):
        file = path.relative_to(root).as_posix()
        lines.append(
            f"| {{doc}}`{file.removesuffix('.ipynb')}` "
            f"| {write_seconds(runs.get(path.name), path)} "
            f"| {write_checks(checks.get(file), path)} |"
        )
    lines += ["", "## Tests", "", "| file | tests |", "|---|---|"]
    for path in sorted(root.glob("tests/**/test_*.py")):
        file = path.relative_to(root).as_posix()
        lines.append(f"| `{file}` | {write_checks(checks.get(file), path)} |")
    lines += ["", "## Machine and versions", ""]
    for what, found in (("Chapters run", runs), ("Checks", checks)):
        sentences = list(write_circumstances(found.values()))
        lines += [f"**{what}.** {' '.join(sentences) or 'Nothing is recorded.'}", ""]
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines.append(f"**Rendered** with Python {platform.python_version()}, {packages}.")
    return "\n".join(lines)


def fill_page(app, docname, source):
    """Write the tables into the page that has a mark for them."""
    if MARK in source[0]:
        source[0] = source[0].replace(MARK, write_status(app.srcdir))


def setup(app):
    app.connect("source-read", fill_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
