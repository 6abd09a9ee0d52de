"""The package is what the chapters export; its modules follow the book's order."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
ORDER = [
    "data",
    "matrix",
    "rmsnorm",
    "hyper_connections",
    "attention",
    "flash",
    "model",
    "training",
    "sampling",
    "__main__",
]


def imported(module):
    """Top-level names that a module of the package imports, `microgpt.x` in full."""
    source = (ROOT / "microgpt" / f"{module}.py").read_text("utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            yield f"microgpt.{node.module}" if node.level else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    target = tmp_path_factory.mktemp("export") / "microgpt"
    script = ROOT / "tools" / "export_package.py"
    subprocess.run([sys.executable, script, target], check=True, cwd=ROOT)
    return target


@pytest.mark.parametrize("module", [*ORDER, "__init__"])
def test_module_is_what_the_chapters_export(exported, module):
    fresh = (exported / f"{module}.py").read_text("utf-8")
    committed = (ROOT / "microgpt" / f"{module}.py").read_text("utf-8")
    assert fresh == committed, (
        f"microgpt/{module}.py differs from its chapter's exported cells: "
        "edit the chapter, not the module, then run `make export`"
    )


def test_no_module_without_a_chapter(exported):
    names = {path.name for path in (ROOT / "microgpt").glob("*.py")}
    assert names == {path.name for path in exported.glob("*.py")}


@pytest.mark.parametrize("module", ORDER)
def test_modules_import_only_earlier_chapters(module):
    earlier = {f"microgpt.{name}" for name in ORDER[: ORDER.index(module)]}
    own = {name for name in imported(module) if name.startswith("microgpt")}
    assert own <= earlier


def test_public_names():
    import microgpt

    for name in microgpt.__all__:
        assert getattr(microgpt, name).__doc__, name
    required = """load_corpus GPTConfig GPT train sample naive_attention flash_attention
        naive_attention_backward flash_attention_backward sinkhorn Corpus""".split()
    assert set(required) <= set(microgpt.__all__)


def test_import_is_quick():
    """In the processor's time, which other programs on a busy machine do not take."""
    code = (
        "import time; start = time.process_time(); import microgpt;"
        "print(time.process_time() - start)"
    )
    run = [sys.executable, "-c", code]
    subprocess.run(run, check=True, capture_output=True)  # the first time compiles .pyc
    seconds = min(
        float(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
        for _ in range(3)
    )
    assert seconds < 1.0


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_every_code_cell_was_executed_in_order(path):
    """nbval lets a cell that was never executed pass unchecked; none may exist."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    counts = [c["execution_count"] for c in code]
    assert counts == list(range(1, len(code) + 1))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapter_form(path):
    """Few exempt cells, no long cells, no stored errors, a described figure each."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    exempt = [c for c in code if "nbval-ignore-output" in c["metadata"].get("tags", [])]
    assert len(exempt) <= max(3, len(code) // 5)
    assert all("NBVAL" not in "".join(c["source"]) for c in code)
    for cell in code:
        source = "".join(cell["source"])
        assert source.count("\n") < 30, f"above 30 lines: {source[:60]}"
        figure = cell["metadata"].get("mystnb", {})
        for output in cell["outputs"]:
            assert output["output_type"] != "error", f"stored error: {source[:60]}"
            if "image/png" in output.get("data", {}):
                alt = figure.get("image", {}).get("alt", "")
                assert len(alt) > 30, f"figure without alt text: {source[:60]}"
                assert figure["figure"]["caption"], source[:60]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapter_anatomy(path):
    """The same headings in every chapter that builds something, exercises in all."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    text = "\n".join(
        "".join(c["source"]) for c in cells if c["cell_type"] == "markdown"
    )
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    if int(path.name[:2]) <= 9:
        assert headings == [
            "Why", "Mathematics", "Plain version", "Compiled version", "Backward",
            "Break it", "Look", "Misconceptions", "Exercises", "Close",
        ]  # fmt: skip
    assert headings[-2:] == ["Exercises", "Close"]
    assert ":class: tip contract" in text
    assert text.count("{exercise}") >= 3
    assert text.count("{exercise}") == text.count("{solution-start}")


def cells_of(path):
    """The cells of a chapter, each with its source as one string."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells]


def exercises(path):
    """(label, title and question, [(number, hint), ...]) of every exercise."""
    directive = re.compile(
        r"^:{6}\{exercise\} (.+?)\n:label: (\S+)\n(.*?)^:{6}$", re.DOTALL | re.MULTILINE
    )
    hint = re.compile(
        r"^:+\{dropdown\} Hint (\d): .+\n((?:(?!:::).*\n)+)", re.MULTILINE
    )
    for cell in cells_of(path):
        for title, label, body in directive.findall(cell["source"]):
            question = body.split("{dropdown}")[0]
            yield label, f"{title}\n{question}", hint.findall(body)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_every_exercise_has_three_hints_and_one_solution(path):
    """Three hints, and a solution that is folded in Jupyter as it is on the page."""
    cells = cells_of(path)
    found = list(exercises(path))
    assert len(found) == sum(c["source"].count("{exercise}") for c in cells)
    for label, _, hints in found:
        assert [number for number, _ in hints] == ["1", "2", "3"], label
        assert all(len(text.split()) >= 3 for _, text in hints), f"{label}: empty hint"
        start = [
            i
            for i, c in enumerate(cells)
            if f"{{solution-start}} {label}\n:class: dropdown\n" in c["source"]
        ]
        assert len(start) == 1, f"{label}: {len(start)} solutions"
        end = next(
            i
            for i in range(start[0], len(cells))
            if "solution-end" in cells[i]["source"]
        )
        solution = cells[start[0] : end]
        assert any(c["cell_type"] == "code" for c in solution), f"{label}: no code"
        for cell in solution:
            folded = cell["metadata"].get("jupyter", {}).get("source_hidden")
            assert folded, f"{label}: visible in Jupyter: {cell['source'][:40]}"


def test_a_third_of_the_exercises_ask_why_or_what_if():
    questions = [text for path in CHAPTERS for _, text, _ in exercises(path)]
    kind = re.compile(r"\b(why|what if)\b", re.IGNORECASE)
    assert len(questions) >= 40
    assert sum(bool(kind.search(text)) for text in questions) >= len(questions) / 3


def printed_by(path, tag):
    """What the one code cell of a chapter with this tag prints."""
    cells = [c for c in cells_of(path) if tag in c["metadata"].get("tags", [])]
    assert len(cells) == 1, f"{path.stem}: {len(cells)} cells with the tag {tag}"
    return "".join("".join(output["text"]) for output in cells[0]["outputs"])


@pytest.mark.parametrize("k", range(1, 9))
def test_the_toy_example_is_handed_on(k):
    """A chapter begins with the numbers that the one before has ended with."""
    handed_on = printed_by(CHAPTERS[k - 1], "toy-close")
    taken_up = printed_by(CHAPTERS[k], "toy-open")
    assert re.search(r"\d", handed_on) and taken_up == handed_on


def run_snippet(folder, code, **environment):
    """Run Python code that sees the package in `folder`; return what it prints."""
    environment = os.environ | environment | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_cache_never_serves_stale_code(tmp_path):
    """Edit a kernel that another module's cached kernel calls: it must notice."""
    package = tmp_path / "microgpt"
    package.mkdir()
    (package / "__init__.py").write_text("")
    matrix = (ROOT / "microgpt" / "matrix.py").read_text("utf-8")
    (package / "matrix.py").write_text(matrix)
    inner = "from .matrix import kernel\n\n@kernel\ndef inner(x):\n    return {} * x\n"
    (package / "inner.py").write_text(inner.format(2))
    (package / "outer.py").write_text(
        "from .matrix import kernel\nfrom .inner import inner\n\n"
        "@kernel\ndef outer(x):\n    return inner(x)\n"
    )
    code = "from microgpt.outer import outer; print(outer(10)); print(outer.stats)"
    first = run_snippet(tmp_path, code)
    assert first.startswith("20") and "cache_hits={}" in first.replace(
        "Counter()", "{}"
    )
    again = run_snippet(tmp_path, code)
    assert again.startswith("20") and "int64" in again.split("cache_misses")[0]
    (package / "inner.py").write_text(inner.format(3))
    assert run_snippet(tmp_path, code).startswith("30")


def test_notebook_kernels_are_not_cached():
    code = (
        "from microgpt.matrix import kernel\n"
        "def f(x):\n    return x\n"
        "f = kernel(f)\nf(1)\nprint(f._cache.cache_path)"
    )
    assert run_snippet(ROOT, code) == "None"
