"""The ledger sees what the book says, and what is missing from it."""

import nbformat
import pytest
from equations import Code, read_equations
from ledger import write_ledger
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

KERNEL = '#| export\ndef double(x):\n    """2 x. Chapter 1, :eq:`toy-double`."""\n'
KERNEL += "    return 2 * x\n"
SUM = "Twice is a sum.\n\n$$\ny = x + x\n$$ (toy-double)\n\nHere is {eq}`toy-double`."


@pytest.fixture
def book(tmp_path):
    """A book of one equation, one function and one check, each to be replaced."""

    def book(text=SUM, kernel=KERNEL, check="assert double(3) == 6", test=""):
        for folder in ("chapters", "microgpt", "tests"):
            (tmp_path / folder).mkdir(exist_ok=True)
        cells = [new_markdown_cell(text), new_code_cell(kernel, execution_count=1)]
        cells += [new_markdown_cell("And?"), new_code_cell(check, execution_count=2)]
        nbformat.write(new_notebook(cells=cells), tmp_path / "chapters/01_toy.ipynb")
        (tmp_path / "microgpt/toy.py").write_text(kernel.partition("\n")[2])
        (tmp_path / "tests/test_toy.py").write_text(test)
        return read_equations(tmp_path)

    return book


def test_the_book_has_nothing_to_complain_of(root):
    equations, problems = read_equations(root)
    assert problems == []
    assert equations["matrix-matmul"].functions[-1] == "microgpt.matrix.matmul"
    assert "tests/test_attention.py::test_sinkhorn" in equations["hyper-sinkhorn"].tests
    assert len({e.document for e in equations.values() if e.is_result}) == 11


def test_an_equation_its_function_and_its_check(book):
    equations, problems = book()
    assert problems == []
    toy = equations["toy-double"]
    assert toy.functions == ["microgpt.toy.double"]
    assert [place.count for place in toy.checks] == [2]
    table = write_ledger(equations)
    for part in (
        "{eq}`toy-double`",
        "{py:obj}`~microgpt.toy.double`",
        "{ref}`cell 2 <",
    ):
        assert part in table


@pytest.mark.parametrize(
    "check",
    [
        "print(double(3))",  # cannot fail
        "assert 3 + 3 == 6",  # does not use the function
        "def check():\n    assert double(3) == 6",  # is never called
        "def check(double):\n    assert double(3) == 6\n\ncheck(abs)",  # another one
    ],
)
def test_what_is_no_check(book, check):
    assert book(check=check)[1] == ["the equation toy-double has no check"]


@pytest.mark.parametrize(
    "check",
    [
        "def check(f):\n    assert f(3) == 6\n\ncheck(double)",
        "def four(x):\n    return double(double(x))\n\nassert four(1) == 4",
        "import numpy as np\nnp.testing.assert_allclose(double(3), 6)",
        "%matplotlib inline\nassert double(3) == 6",
    ],
)
def test_what_is_a_check(book, check):
    assert book(check=check)[1] == []


def test_a_test_may_be_the_check(book):
    mark = "import pytest\n\n@pytest.mark.equation('toy-double')\ndef test_it(): ..."
    equations, problems = book(check="print()", test=mark)
    assert problems == []
    assert equations["toy-double"].tests == ["tests/test_toy.py::test_it"]


def test_citations_of_nothing_are_reported(book):
    problems = book(kernel=KERNEL.replace("toy-double", "toy-treble"))[1]
    assert problems == ["microgpt.toy.double cites toy-treble, which is no equation"]
    mark = "import pytest\n\n@pytest.mark.equation('toy-treble')\ndef test_it(): ..."
    problems = book(test=mark)[1]
    assert problems == [
        "tests/test_toy.py::test_it cites toy-treble, which is no equation"
    ]


def test_an_equation_without_code_is_no_result(book):
    equations, problems = book(text=SUM + " Later.\n\nNow.", kernel="x = 1", check="x")
    assert problems == [] and not equations["toy-double"].is_result


def test_exported_cells_are_no_checks():
    assert Code("#| export\nassert True").exported
