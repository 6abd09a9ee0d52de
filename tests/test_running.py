"""What `make run` stores: nothing new, unless something has changed."""

import sys

import nbformat
import pytest
import run_chapters
from nbformat.v4 import new_code_cell, new_notebook


def run(folder, *cells, keep=True):
    """The notebook of these (source, tags), stored, executed where it is."""
    path = folder / "chapter.ipynb"
    old = nbformat.read(path, as_version=4).cells if path.exists() else []
    notebook = new_notebook()
    for i, (source, tags) in enumerate(cells):
        cell = new_code_cell(source, id=f"cell-{i}", metadata={"tags": tags})
        if i < len(old):
            cell.outputs, cell.execution_count = old[i].outputs, i + 1
        notebook.cells.append(cell)
    nbformat.write(run_chapters.normalise(notebook), path)
    run_chapters.execute(path, keep)
    return path.read_bytes()


def test_times_are_new_only_if_something_else_is(tmp_path):
    time = "import time\nprint(time.perf_counter_ns())", [run_chapters.MEASURED]
    first = run(tmp_path, ("print(6 * 7)", []), time)
    assert run(tmp_path, ("print(6 * 7)", []), time) == first
    assert run(tmp_path, ("print(6 * 7)", []), time, keep=False) != first
    second = run(tmp_path, ("print(6 * 8)", []), time)
    assert b"48" in second
    stamps = [nbformat.reads(x.decode(), 4).cells[1].outputs for x in (first, second)]
    assert stamps[0] != stamps[1]


def test_a_notebook_that_is_not_there_is_named_before_any_is_run(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(run_chapters, "execute", lambda *_: pytest.fail("it was run"))
    there, missing = tmp_path / "a.ipynb", tmp_path / "b.ipynb"
    there.touch()
    monkeypatch.setattr(sys, "argv", ["run_chapters.py", str(there), str(missing)])
    with pytest.raises(SystemExit):
        run_chapters.main()
    assert f"error: there is no notebook {missing}" in capsys.readouterr().err
