"""Write the package `microgpt/` from the exported cells of the chapters.

nbdev collects the cells marked `#| export`; ruff sorts the imports and formats.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from nbdev.export import nb_export

ROOT = Path(__file__).parent.parent


def export(package: Path) -> None:
    """Export every chapter into the folder `package` and drop compiled leftovers."""
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("")  # nbdev adds to it, so it must be there
    for notebook in sorted((ROOT / "chapters").glob("*.ipynb")):
        nb_export(notebook, lib_path=package)
    for module in package.glob("*.py"):
        text = module.read_text("utf-8")
        # public names have one place, __init__; nbdev lists private ones too
        text = re.sub(r"\n# %% auto #?\d+\n__all__ = .*?\]\n", "", text, flags=re.S)
        # paths as seen from the root of the book, wherever the export went
        text = re.sub(r"\S*chapters/(\w+\.ipynb)", r"chapters/\1", text)
        module.write_text(text, "utf-8", newline="\n")
    config = ["--config", str(ROOT / "pyproject.toml")]
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run(
        [*ruff, "check", "-q", "--select", "I", "--fix", *config, package], check=True
    )
    subprocess.run([*ruff, "format", "-q", *config, package], check=True)
    for stale in package.glob("__pycache__/kernels-*"):
        shutil.rmtree(stale, ignore_errors=True)  # one may be in use


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "microgpt")
    export(parser.parse_args().folder)
