"""What the project takes from others: declared, pinned, licensed, and only once."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import colab_cells
import licences
import pytest
from offline import control, why_not, without_network

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NEAR = [
    path.stem for folder in ("_ext", "tools") for path in (ROOT / folder).glob("*.py")
]
OWN = {"microgpt", "benchmarks", *NEAR}


def names(requirements):
    """The packages that lines of requirements name, without versions and remarks."""
    lines = (re.match(r"[\w.-]+", line) for line in requirements)
    return {licences.normal(found[0]) for found in lines if found}


def imported(source):
    """Top-level modules that a piece of Python imports, relative ones left out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)


def foreign(folder):
    """The packages that the modules and notebooks in a folder import from others."""
    files = [*folder.rglob("*.py"), *folder.rglob("*.ipynb")]
    near = OWN | {path.stem for path in files}
    owners, found = packages_distributions(), set()
    for path in files:
        source = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = json.loads(source)["cells"]
            code = [
                "".join(cell["source"])
                for cell in cells
                if cell["cell_type"] == "code" and cell["id"] != colab_cells.ID
            ]
            source = "\n".join(code)
        found |= set(imported(source)) - near - set(sys.stdlib_module_names)
    return {licences.normal(owners.get(name, [name])[0]) for name in found}


PACKAGE = names(PROJECT["dependencies"])
EXTRAS = {key: names(rows) for key, rows in PROJECT["optional-dependencies"].items()}
ASKED = names((ROOT / "requirements.in").read_text("utf-8").splitlines())


def test_the_package_imports_what_it_declares():
    assert foreign(ROOT / "microgpt") == PACKAGE


@pytest.mark.parametrize("folder", ["tests", "tools", "_ext", "chapters"])
def test_the_book_imports_what_it_asks_for(folder):
    assert foreign(ROOT / folder) <= ASKED
    assert PACKAGE <= ASKED


def test_the_extras_are_what_their_users_import():
    benchmarks = foreign(ROOT / "benchmarks")
    assert EXTRAS["bench"] <= benchmarks <= PACKAGE | EXTRAS["bench"]
    assert EXTRAS["test"] <= ASKED


def test_every_pin_has_hashes_and_everything_asked_for_is_pinned():
    text = licences.PINS.read_text("utf-8")
    blocks = re.split(r"\n(?=\w)", text.replace("\\\n", ""))[1:]
    assert ASKED <= names(blocks)
    for block in blocks:
        assert re.search(r"^\S+==\S+ .*--hash=sha256:[0-9a-f]{64}\b", block), block[:80]
        assert "://" not in block, "a pin names no place"


def test_every_package_has_a_licence_that_fits():
    rows = re.findall(
        r"^\| (\S+) \| (\d\S*) \| (.+) \|$", licences.TABLE.read_text("utf-8"), re.M
    )
    assert [(name, version) for name, version, _ in rows] == sorted(
        set(licences.pinned()), key=lambda pin: (pin[0] not in licences.needed(), *pin)
    ), "run `python tools/licences.py`"
    found = licences.installed()
    for name, _, licence in rows:
        assert not licences.unwanted(name, licence), f"{name}: {licence}"
        assert found.get(name, licence) == licence, "run `python tools/licences.py`"


needs_namespace = pytest.mark.skipif(bool(why_not()), reason=why_not())


@needs_namespace
def test_the_namespace_has_no_route():
    subprocess.run(without_network(control()), check=True)


@needs_namespace
def test_training_and_sampling_need_no_network(tmp_path):
    (tmp_path / "input.txt").write_text("ava\nanna\nhannah\n")
    for arguments in ("train --steps 3 --save m", "sample m --n 2"):
        command = [sys.executable, "-m", "microgpt", *arguments.split()]
        done = subprocess.run(
            without_network(command),
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and "sample  2: " in done.stdout, done.stderr


def test_the_workflow_tests_the_package_as_the_makefile_does():
    """It spells the files out, since there is no `make` on every system."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    names = re.search(r"PACKAGE_TESTS := .*test_%.py,(.*)\)", makefile)[1].split()
    workflow = (ROOT / ".github/workflows/test.yml").read_text("utf-8")
    files = re.search(r"python -m pytest (tests/.*)", workflow)[1].split()
    assert files == [f"tests/test_{name}.py" for name in names]
