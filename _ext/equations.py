"""Which code implements an equation, and what checks it.

Everything is read from what the book says anyway: the labels of the equations, the
sentences that cite them before code, the docstrings of the package, and the marks of
the tests. Nothing is executed and nothing here needs Sphinx.
"""

import ast
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

LABEL = re.compile(r"\$\$ *\(([\w-]+)\)")
CITED = re.compile(r"\{eq\}`([\w-]+)`")
CITED_IN_DOCSTRING = re.compile(r":eq:`([\w-]+)`")
EXPORT = re.compile(r"#\| exporti?(?: (\S+))?\n")
FUNCTIONS = (ast.FunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Place:
    """A cell of a chapter: its document, the cell's id, and its execution count."""

    document: str
    cell: str
    count: int


@dataclass
class Code:
    """A code cell: what it defines, what it uses, and whether it can fail."""

    source: str
    place: Place | None = None
    introduced_by: tuple[str, ...] = ()  # labels that the paragraph before it cites

    @cached_property
    def tree(self):
        return ast.parse(TransformerManager().transform_cell(self.source))

    @property
    def exported(self):
        return bool(EXPORT.match(self.source))

    @property
    def defines(self):
        return [node.name for node in self.tree.body if isinstance(node, FUNCTIONS)]

    @cached_property
    def uses(self):
        return names_in(self.tree)

    def can_fail(self, checkers):
        """Whether running the cell asserts something, itself or by a checker."""
        body = [node for node in self.tree.body if not isinstance(node, FUNCTIONS)]
        return any(asserts(node, checkers) for node in body)


@dataclass
class Equation:
    """A numbered equation with what rests on it."""

    label: str
    document: str
    functions: list[str] = field(default_factory=list)  # microgpt.module.name
    cells: list[Code] = field(default_factory=list)  # introduced by it
    checks: list[Place] = field(default_factory=list)
    tests: list[str] = field(default_factory=list)  # tests/file.py::name

    @property
    def is_result(self):
        """Code rests on it: a function of the package, or a cell of a chapter."""
        return bool(self.functions or self.cells)

    @property
    def is_checked(self):
        return bool(self.checks or self.tests)


def names_in(node):
    """The names that a piece of code reads, parameters of its functions left out."""
    parts = list(ast.walk(node))
    parameters = {part.arg for part in parts if isinstance(part, ast.arg)}
    return {part.id for part in parts if isinstance(part, ast.Name)} - parameters


def asserts(node, checkers):
    """Whether code holds an assertion or calls one of the functions that do."""
    for part in ast.walk(node):
        if isinstance(part, ast.Assert):
            return True
        if isinstance(part, ast.Call):
            name = getattr(part.func, "id", getattr(part.func, "attr", ""))
            if name in checkers or name.startswith("assert_"):
                return True
    return False


def read_chapter(root, path):
    """Labels of a notebook's equations in order, and its code cells."""
    document = path.relative_to(root).with_suffix("").as_posix()
    labels, code, cited = [], [], []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            labels += LABEL.findall(cell.source)
            cited = CITED.findall(cell.source.strip().split("\n\n")[-1])
        elif cell.cell_type == "code":
            place = Place(document, cell.id, cell.execution_count)
            code.append(Code(cell.source, place, tuple(cited)))
    return document, labels, code


def checking_cells(code):
    """The cells of one chapter that can fail, exported ones left out."""
    checkers, found = set(), []
    for cell in code:
        for node in cell.tree.body:
            if isinstance(node, ast.FunctionDef) and asserts(node, checkers):
                checkers.add(node.name)
        if not cell.exported and cell.can_fail(checkers):
            found.append(cell)
    return found


def callers(code, names):
    """`names` and the functions of a chapter that call one of them, in turn."""
    names = set(names)
    for cell in code:
        for node in cell.tree.body:
            if isinstance(node, FUNCTIONS) and names_in(node) & names:
                names.add(node.name)
    return names


def find_checks(equation, chapters):
    """Cells that check an equation: introduced by it, or users of it.

    A cell that the equation introduces and that can fail is a check. In the chapter of
    the equation so is the first cell that can fail and uses a function that implements
    it, directly or, if there is none, through another function.
    """
    checks = [
        cell
        for _, checking in chapters.values()
        for cell in checking
        if equation.label in cell.introduced_by
    ]
    code, checking = chapters[equation.document]
    names = {name.rpartition(".")[2] for name in equation.functions}
    names |= {
        name
        for cell in code
        if equation.label in cell.introduced_by
        for name in cell.defines
    }
    for wanted in (names, callers(code, names)):
        users = [cell for cell in checking if wanted & cell.uses]
        if users:
            return checks + [cell for cell in users[:1] if cell not in checks]
    return checks


def read_package(package):
    """Pairs (function, label): what the package's docstrings cite."""
    for path in sorted(Path(package).glob("*.py")):
        for name, node in documented(ast.parse(path.read_text())):
            for label in CITED_IN_DOCSTRING.findall(ast.get_docstring(node) or ""):
                yield f"microgpt.{path.stem}{name}", label


def documented(node, name=""):
    """A module, its functions and classes, and their methods, with dotted names."""
    yield name, node
    for child in node.body:
        if isinstance(child, FUNCTIONS):
            yield from documented(child, f"{name}.{child.name}")


def read_tests(folder):
    """Pairs (test, label): what `@pytest.mark.equation("label", ...)` names."""
    for path in sorted(Path(folder).glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            for mark in getattr(node, "decorator_list", []):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith(
                    "mark.equation"
                ):
                    for label in mark.args:
                        yield f"tests/{path.name}::{node.name}", label.value


def read_equations(root):
    """All equations of the book, by label, in its order; and what is wrong."""
    equations, chapters, problems = {}, {}, []
    for path in sorted(Path(root, "chapters").glob("*.ipynb")):
        document, labels, code = read_chapter(root, path)
        chapters[document] = code, checking_cells(code)
        equations |= {label: Equation(label, document) for label in labels}
    for kind, pairs in (
        ("functions", read_package(Path(root, "microgpt"))),
        ("tests", read_tests(Path(root, "tests"))),
    ):
        for name, label in pairs:
            if label in equations:
                found = getattr(equations[label], kind)
                found += [name] if name not in found else []
            else:
                problems.append(f"{name} cites {label}, which is no equation")
    for code, _ in chapters.values():
        for cell in code:
            for label in equations.keys() & cell.introduced_by:
                equations[label].cells.append(cell)
    for equation in equations.values():
        equation.checks = [cell.place for cell in find_checks(equation, chapters)]
    problems += [
        f"the equation {e.label} has no check"
        for e in equations.values()
        if e.is_result and not e.is_checked
    ]
    return equations, problems
