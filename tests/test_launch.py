"""What Binder, Colab and a development container find works, and is silent here."""

import importlib.util
import json
import shutil

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell


@pytest.fixture
def tool(root):
    path = root / "tools" / "colab_cells.py"
    spec = importlib.util.spec_from_file_location("colab_cells", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_cell_comes_once_and_goes_without_a_trace(tool, root, tmp_path):
    original = root / "chapters" / "03_rmsnorm.ipynb"
    copy = shutil.copy(original, tmp_path)
    tool.update(copy, "")
    before = nbformat.read(copy, as_version=4)
    for _ in range(2):
        tool.update(copy, "https://example.org/book")
    with_cell = nbformat.read(copy, as_version=4)
    assert [c.id for c in with_cell.cells].count("colab") == 1
    counts = [c.execution_count for c in with_cell.cells if c.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    tool.update(copy, "")
    assert nbformat.read(copy, as_version=4) == before


def test_the_cell_is_silent_outside_colab(tool, capsys):
    shell = InteractiveShell.instance()
    done = shell.run_cell(tool.SOURCE.format(url="https://example.org/book"))
    assert done.success and done.result is None
    assert capsys.readouterr() == ("", "")


def test_the_container_and_binder_install_this_book(root):
    container = json.loads((root / ".devcontainer/devcontainer.json").read_text())
    assert container["postCreateCommand"].endswith("make setup")
    lines = (root / "binder/requirements.txt").read_text().split("\n")
    assert lines[0] == "-r ../requirements.txt" and lines[1] == "-e ."
