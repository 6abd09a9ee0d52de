"""What Binder, Colab and a development container find works, and is silent here."""

import json
import shutil
import sys

import colab_cells
import nbformat
import pytest
import yaml
from IPython.core.interactiveshell import InteractiveShell


@pytest.fixture
def url(root):
    return yaml.safe_load((root / "_config.yml").read_text())["repository"]["url"]


def test_every_chapter_begins_with_the_cell(root, url):
    for path in sorted((root / "chapters").glob("*.ipynb")):
        first, *rest = nbformat.read(path, as_version=4).cells
        assert first.id == colab_cells.ID
        said = f"run `python tools/colab_cells.py`: {path.name}"
        assert first.source == colab_cells.SOURCE.format(url=url), said
        assert "remove-cell" in first.metadata.tags and first.outputs == []
        assert colab_cells.ID not in [cell.id for cell in rest]


def test_the_cell_comes_once_and_follows_the_address(root, tmp_path):
    copy = shutil.copy(root / "chapters" / "03_rmsnorm.ipynb", tmp_path)
    notebook = nbformat.read(copy, as_version=4)
    notebook.cells = [c for c in notebook.cells if c.id != colab_cells.ID]
    for count, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
        cell.execution_count = count + 1
    nbformat.write(notebook, copy)
    for address in ("https://example.org/old", "https://example.org/new"):
        colab_cells.update(copy, address)
    after = nbformat.read(copy, as_version=4).cells
    assert [c.id for c in after] == [colab_cells.ID, *(c.id for c in notebook.cells)]
    assert "/new" in after[0].source and "/old" not in after[0].source
    counts = [c.execution_count for c in after if c.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_the_cell_is_silent_outside_colab(capsys):
    shell = InteractiveShell.instance()
    done = shell.run_cell(colab_cells.SOURCE.format(url="https://example.org/book"))
    assert done.success and done.result is None
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("address", ["", "https://example.org/book"])
def test_the_cell_fetches_the_book_in_colab(monkeypatch, address):
    """In a stand-in for Colab: what would be run, and what is said without address."""
    shell, commands = InteractiveShell.instance(), []
    monkeypatch.setitem(sys.modules, "google.colab", object())
    monkeypatch.setattr(shell, "system", lambda c: commands.append(shell.var_expand(c)))
    monkeypatch.setattr(
        shell, "run_line_magic", lambda name, line, **_: commands.append(line)
    )
    done = shell.run_cell(colab_cells.SOURCE.format(url=address))
    assert done.success == bool(address)
    if address:
        assert commands[0].endswith(f"{address} /content/book")
        assert commands[1:] == ["install -q /content/book", "-q /content/book/chapters"]


def test_the_container_and_binder_install_this_book(root):
    container = json.loads((root / ".devcontainer/devcontainer.json").read_text())
    assert container["postCreateCommand"].endswith("make setup")
    lines = (root / "binder/requirements.txt").read_text().split("\n")
    assert lines[0] == "-r ../requirements.txt" and lines[1] == "-e ."
