"""Write `licences.md`: every pinned package, its version and its licence.

    python tools/licences.py

pip-licenses reads what the installed packages declare; only what they leave open or
mean otherwise is said here. Run it after `make lock` and `make setup`.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PINS = ROOT / "requirements.txt"
TABLE = ROOT / "licences.md"

# what one may use, change and pass on beside MIT code, as SPDX spells it
ALLOWED = {
    "0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC",
    "LLVM-exception", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Zlib",
    "public domain",
}  # fmt: skip
# commands that are run to check or render the book; no part of them is passed on
TOOLS = {"codespell": {"GPL-2.0-only"}}
# read in the packages themselves: no licence in the metadata, or one file under another
DECLARED = {
    "appnope": "BSD-2-Clause",  # macOS only
    "axe-playwright-python": "MIT AND MPL-2.0",
    "colorama": "BSD-3-Clause",  # Windows only
    "docutils": "public domain AND BSD-2-Clause AND BSD-3-Clause AND PSF-2.0",
    "pywinpty": "MIT",  # Windows only
}
SPELLINGS = {
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "ISC license": "ISC",
    "MIT License": "MIT",
    "MIT license": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "PSFL": "PSF-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def normal(name: str) -> str:
    """A package's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> list[tuple[str, str]]:
    """Names and versions in requirements.txt, but for other kinds of Python."""
    lines = PINS.read_text("utf-8").splitlines()
    found = (re.match(r"([^ #=]+)==([^ ;\\]+)(.*)", line) for line in lines)
    return [
        (normal(pin[1]), pin[2])
        for pin in found
        if pin and "== 'emscripten'" not in pin[3]
    ]


def declared(package: dict) -> str:
    """The licence that a package declares: expression, else one line, else class."""
    known = DECLARED.get(normal(package["Name"]))
    fields = ("License-Expression", "License-Metadata", "License-Classifier")
    texts = [package[field] for field in fields]
    short = (t for t in texts if t != "UNKNOWN" and "\n" not in t and len(t) < 80)
    text = known or next(short, "UNKNOWN")
    return SPELLINGS.get(text, text)


def installed() -> dict[str, str]:
    """Licences of the packages in this environment, by name."""
    command = [sys.executable, "-m", "piplicenses", "--format=json", "--from=all"]
    run = subprocess.run(
        [*command, "--with-system"], stdout=subprocess.PIPE, check=True
    )
    found = {normal(p["Name"]): declared(p) for p in json.loads(run.stdout)}
    return DECLARED | found


def unwanted(name: str, licence: str) -> set[str]:
    """The parts of a licence expression that are not allowed for a package."""
    parts = set(re.split(r" AND | OR | WITH ", licence))
    return parts - ALLOWED - TOOLS.get(name, set())


def needed() -> set[str]:
    """The packages that `microgpt` itself imports."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return {re.split(r"[<>=!~]", d)[0] for d in project["dependencies"]} | {"llvmlite"}


def page() -> str:
    """The Markdown of the two tables."""
    licences, package = installed(), needed()
    parts = ["# Licences\n", INTRODUCTION]
    for title, inside in (("microgpt needs", True), ("The book is made with", False)):
        parts.append(f"## {title}\n\n| package | version | licence |\n|---|---|---|")
        for name, version in dict.fromkeys(pinned()):
            if (name in package) == inside:
                parts.append(f"| {name} | {version} | {licences[name]} |")
        parts.append("")
    return "\n".join(parts)


INTRODUCTION = """\
The book and its code are under the licences that the README names. The packages below
are installed beside them; only MathJax (Apache-2.0) and the theme's styles and scripts
(BSD) are copied, into the rendered pages. `tools/licences.py` writes this file, from
what the packages declare.
"""

if __name__ == "__main__":
    TABLE.write_text(page(), "utf-8", newline="\n")
