"""The status page says what was recorded, and that nothing was where nothing was."""

import os

import nbformat
import pytest
import records
from nbformat.v4 import new_code_cell, new_notebook
from status import write_status


@pytest.fixture
def book(tmp_path):
    for name in ("chapters", "tests"):
        (tmp_path / name).mkdir()
    write_chapter(tmp_path, "1 + 1")
    (tmp_path / "tests/test_toy.py").write_text("def test_it(): ...\n")
    return tmp_path


def write_chapter(root, code, output=""):
    cell = new_code_cell(code, id="toy", outputs=[])
    cell.metadata["said"] = output
    nbformat.write(new_notebook(cells=[cell]), root / "chapters/01_toy.ipynb")


def record(book):
    records.record_run(book, book / "chapters/01_toy.ipynb", 12.34)
    cells = [("chapters/01_toy.ipynb", "passed")] * 3
    tests = [("tests/test_toy.py", "passed"), ("tests/test_toy.py", "failed")]
    records.record_checks(book, cells + tests)


def test_nothing_recorded_is_said_to_be_so(book):
    page = write_status(book)
    assert "| {doc}`chapters/01_toy` | not recorded | not recorded |" in page
    assert "| `tests/test_toy.py` | not recorded |" in page
    assert page.count("Nothing is recorded.") == 2


def test_what_was_recorded_is_shown(book):
    record(book)
    page = write_status(book)
    assert "| {doc}`chapters/01_toy` | 12.3 s | 3 passed |" in page
    assert "| `tests/test_toy.py` | 1 passed, **1 failed** |" in page
    assert "numba " in page and "Nothing is recorded." not in page


def test_other_code_has_no_record_but_other_outputs_do(book):
    record(book)
    write_chapter(book, "1 + 1", "2")
    assert "12.3 s | 3 passed" in write_status(book)
    write_chapter(book, "1 + 2")
    assert write_status(book).count("recorded for another version") == 2


def test_the_copy_that_is_rendered_finds_the_records(book):
    copy = book / "_build" / "book"
    copy.mkdir(parents=True)
    assert records.folder(copy) == records.folder(book)


def test_runs_are_recorded_where_the_system_tells_no_cores(book, monkeypatch):
    """As on macOS and Windows; every run of the tests ends with such a record."""
    monkeypatch.delattr(os, "sched_getaffinity")
    record(book)
    assert "1 passed, **1 failed**" in write_status(book)


def test_no_machine_or_folder_is_named(book):
    import getpass
    import socket

    record(book)
    page = write_status(book)
    assert str(book) not in page and socket.gethostname() not in page
    assert f"/{getpass.getuser()}" not in page
