"""Mutation testing: change the package in one place at a time; some test must notice.

    python tools/mutate.py                    # all modules of MODULES
    python tools/mutate.py matrix flash       # these only
    python tools/mutate.py --show flash.add   # print the mutants of a function

Every mutant runs in Python, without the compiler, in a process forked from one that has
imported all but the package. It is killed when a test fails or time runs out. One that
lives must be explained in tools/mutants_explained.toml, by function, statement, mutated
statement and, where these agree, occurrence; the file also excludes functions that run
only as compiled code. Not mutated: decorators, docstrings, annotations, defaults, and
the text of messages.

mutmut leaves decorated functions alone, which all kernels are; cosmic-ray starts an
interpreter for every mutant and knows mutants by their place in the file.
"""

import argparse
import ast
import contextlib
import copy
import datetime
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import signal
import sys
import time
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"NUMBA_DISABLE_JIT": "1", "TQDM_DISABLE": "1"}
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
os.environ["HYPOTHESIS_PROFILE"] = "mutation"
# nothing is compiled; the branches for wide registers are taken on every processor
os.environ["NUMBA_CPU_FEATURES"] = "+avx2,+avx512f"

ROOT = Path(__file__).parent.parent
EXPLAINED = ROOT / "tools" / "mutants_explained.toml"
SHARED = ["hypothesis", "numba", "numpy", "psutil", "pytest", "safetensors.numpy"]
SHARED += ["hypothesis.extra.numpy", "numba.extending", "tqdm", "_pytest.python"]

# Module -> the tests that are to notice its mutants, those that fail most often first
TILED = ["tests/test_properties_flash.py", "tests/test_properties_attention.py"]
MODULES = {
    "matrix": ["tests/test_properties_matrix.py"],
    "rmsnorm": ["tests/test_properties_layers.py"],
    "hyper_connections": ["tests/test_properties_layers.py"],
    "attention": TILED,
    "flash": TILED,
    "model": ["tests/test_properties_model.py"],
    "training": ["tests/test_properties_model.py"],
    "sampling": ["tests/test_properties_model.py"],
}
COMPILED = ("kernel", "inlined", "compiled")  # of the last three only such functions
KERNELS_ONLY = ("model", "training", "sampling")

OTHER = {  # what stands for an operator
    ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult],
    ast.FloorDiv: [ast.Mult], ast.Mod: [ast.FloorDiv], ast.Pow: [ast.Mult],
    ast.LShift: [ast.RShift], ast.Lt: [ast.LtE, ast.Gt], ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.Lt], ast.GtE: [ast.Gt, ast.Lt], ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is], ast.In: [ast.NotIn],
    ast.NotIn: [ast.In], ast.And: [ast.Or], ast.Or: [ast.And],
    ast.BitOr: [ast.BitAnd],
}  # fmt: skip
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
METHODS = {"rint": "floor", "sqrt": "exp"}


@dataclass(frozen=True)
class Mutant:
    """One change: where, what stood there, what stands there now, and which of them."""

    function: str
    original: str
    mutated: str
    occurrence: int

    def __str__(self):
        which = f"  ({self.occurrence})" if self.occurrence > 1 else ""
        return f"{self.function}: {self.original}  ->  {self.mutated}{which}"


def header(statement) -> str:
    """The statement in one line, without the statements inside it."""
    if isinstance(statement, ast.For | ast.While | ast.If | ast.With | ast.Try):
        statement = copy.copy(statement)
        statement.body, statement.orelse = [ast.Pass()], []
        return ast.unparse(statement).partition("\n")[0]
    return " ".join(ast.unparse(statement).split())


def changed(node):
    """Nodes that may stand for an expression or an operator."""
    kind = type(node)
    for other in OTHER.get(kind, []):
        yield other()
    if kind is ast.Constant:
        yield from changed_constant(node.value)
    elif kind is ast.UnaryOp and isinstance(node.op, ast.USub | ast.Not):
        yield node.operand
    elif kind is ast.IfExp:
        yield ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif kind is ast.Name and node.id in FUNCTIONS:
        yield ast.Name(FUNCTIONS[node.id], ast.Load())
    elif kind is ast.Attribute and node.attr in METHODS:
        yield ast.Attribute(node.value, METHODS[node.attr], ast.Load())
    elif kind is ast.Tuple and 1 < len(node.elts) < 4 and is_value(node):
        first, second, *rest = node.elts
        yield ast.Tuple([second, first, *rest], ast.Load())
    elif kind is ast.Call and getattr(node.func, "id", "") == "range":
        yield from changed_range(node)


def is_value(node) -> bool:
    """Whether an expression is read, not assigned to."""
    return isinstance(node.ctx, ast.Load)


def changed_constant(value):
    """Another number, the other truth value, another text."""
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
        if value > 0:
            yield ast.Constant(value - 1)
    elif isinstance(value, float):
        yield ast.Constant(2 * value + 1)
    elif isinstance(value, str):
        yield ast.Constant(value + "x")


def changed_range(call):
    """A range that ends one earlier."""
    arguments = list(call.args)
    place = min(1, len(arguments) - 1)
    less = ast.BinOp(arguments[place], ast.Sub(), ast.Constant(1))
    arguments[place] = less
    yield ast.Call(call.func, arguments, call.keywords)


def instead(statement):
    """Statements that may stand for a whole statement."""
    kind = type(statement)
    if kind in (ast.AugAssign, ast.Raise) or (
        kind is ast.Expr and isinstance(statement.value, ast.Call)
    ):
        yield ast.Pass()
    if kind is ast.Assign and isinstance(statement.targets[0], ast.Subscript):
        yield ast.Pass()
    if kind is ast.AugAssign:
        target = copy.deepcopy(statement.target)
        yield ast.Assign([target], statement.value, lineno=statement.lineno)
    if kind is ast.Continue:
        yield ast.Break()
    if kind is ast.Break:
        yield ast.Continue()
    if kind is ast.If:
        opposite = ast.UnaryOp(ast.Not(), statement.test)
        yield ast.If(opposite, statement.body, statement.orelse)


SKIPPED = (ast.JoinedStr, ast.Raise, ast.FunctionDef, ast.ClassDef, ast.arguments)
COMPOUND = ("body", "orelse", "handlers", "finalbody")


def places(node, top=True):
    """(parent, field, index) of what stands in one statement, without its body."""
    for field, value in ast.iter_fields(node):
        if (top and field in COMPOUND) or field in ("annotation", "returns", "ctx"):
            continue
        children = value if isinstance(value, list) else [value]
        for i, child in enumerate(children):
            if isinstance(child, ast.AST) and not isinstance(child, SKIPPED):
                yield node, field, i if isinstance(value, list) else None
                yield from places(child, top=False)


def is_text(statement) -> bool:
    """A docstring or another text that is not used."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def statements(body, name, compiled_only):
    """(function, list, index) of every statement to be mutated, nested ones too."""
    for i, statement in enumerate(body):
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            marks = [getattr(x, "id", "") for x in statement.decorator_list]
            if compiled_only and not set(marks) & set(COMPILED):
                continue
            inside = f"{name}.{statement.name}"
            yield from statements(statement.body, inside, False)
        elif not (is_text(statement) or isinstance(statement, ast.Import)):
            if compiled_only or isinstance(statement, ast.ImportFrom):
                continue
            yield name, body, i
            for field in ("body", "orelse", "finalbody"):
                inner = getattr(statement, field, [])
                yield from statements(inner, name, False)
            for handler in getattr(statement, "handlers", []):
                yield from statements(handler.body, name, False)


def variants(body, i):
    """Every way to change one statement; `body` holds it while it is yielded."""
    statement = body[i]
    for new in instead(statement):
        body[i] = new
        yield new
    body[i] = statement
    if isinstance(statement, ast.Raise):
        return
    for node, field, index in places(statement):
        values = getattr(node, field)
        old = values if index is None else values[index]
        unordered = isinstance(node, ast.Compare | ast.comprehension | ast.For)
        if unordered and isinstance(old, ast.Tuple):
            continue  # what something is in, or goes through, in any order
        for new in changed(old):
            replace(node, field, index, new)
            yield statement
        replace(node, field, index, old)


def replace(node, field, index, value):
    """node.field[index] = value, or node.field = value."""
    if index is None:
        setattr(node, field, value)
    else:
        getattr(node, field)[index] = value


def mutants(module: str):
    """Every mutant of a module, with its compiled code."""
    path = ROOT / "microgpt" / f"{module}.py"
    tree, seen = ast.parse(path.read_text("utf-8")), Counter()
    for name, body, i in statements(tree.body, module, module in KERNELS_ONLY):
        original = header(body[i])
        for new in variants(body, i):
            key = name, original, header(new)
            if key[1] == key[2]:
                continue
            seen[key] += 1
            whole = ast.fix_missing_locations(copy.deepcopy(tree))
            with contextlib.suppress(SyntaxError):
                yield Mutant(*key, seen[key]), compile(whole, str(path), "exec")


class Mutated(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Imports one module of the package from the code of a mutant."""

    def __init__(self, module, code):
        path = ROOT / "microgpt" / f"{module}.py"
        super().__init__(f"microgpt.{module}", str(path))
        self.code = code

    def find_spec(self, name, path, target=None):
        if name == self.name:
            return importlib.util.spec_from_file_location(name, self.path, loader=self)
        return None

    def get_code(self, name):
        return self.code


def run_tests(module, code, tests) -> int:
    """Exit code of pytest; `code` stands for the module's own, unless it is None."""
    import pytest

    if code is not None:
        sys.meta_path.insert(0, Mutated(module, code))
    options = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "--tb=line"]
    options += ["--confcutdir=tests", "-W", "ignore"]
    return pytest.main([*options, *tests])


def verdict(module, code, tests, seconds, quiet=True) -> int | None:
    """Exit code of the tests in a process of their own; None when time runs out."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        if quiet:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
        resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
        status = 3
        try:
            status = int(run_tests(module, code, tests))
        finally:
            os._exit(status)
    end, pause = time.monotonic() + seconds, 0.005
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def explanations():
    """Excluded functions and explained mutants, each with its reason."""
    data = tomllib.loads(EXPLAINED.read_text("utf-8"))
    excluded = {x["function"]: x["reason"] for x in data.get("excluded", [])}
    explained = {}
    for group in data.get("explained", []):
        for row in group["mutants"]:
            original, mutated, *rest = row
            mutant = Mutant(group["function"], original, mutated, *(rest or [1]))
            explained[mutant] = group["reason"]
    return excluded, explained


def examine(module, explained, excluded, only):
    """Counter of what became of a module's mutants; survivors are printed."""
    tests, count = MODULES[module], Counter()
    began = time.monotonic()
    if verdict(module, None, tests, 600, quiet=False) != 0:
        sys.exit(f"{module}: its tests fail without a mutation")
    limit = 5 + 5 * (time.monotonic() - began)
    for mutant, code in mutants(module):
        if mutant.function in excluded or not mutant.function.startswith(only):
            continue
        lives = verdict(module, code, tests, limit) == 0
        kind = "survived" if lives else "killed"
        if explained.pop(mutant, None):
            kind = "explained" if lives else "stale"
        count[kind] += 1
        if kind in ("survived", "stale"):
            print(f"{kind}: {mutant}", flush=True)
    return count


KINDS = ("killed", "explained", "survived", "stale")


def row(name, count) -> str:
    """A line of the report."""
    return f"{name:18}" + "".join(f"{count[kind]:6} {kind}" for kind in KINDS)


def show(name) -> int:
    """Print the mutants of a function; how many there are."""
    found = [
        x for x, _ in mutants(name.partition(".")[0]) if x.function.startswith(name)
    ]
    print(*found, sep="\n")
    return len(found)


def examine_all(modules, only) -> Counter:
    """Examine one module after the other and report; the sum of their counters."""
    for name in SHARED:
        importlib.import_module(name)
    excluded, explained = explanations()
    total, rows, began = Counter(), [], time.monotonic()
    for module in modules:
        count = examine(module, explained, excluded, only)
        for mutant in explained:  # those that are left are no mutants any more
            if mutant.function.partition(".")[0] == module and not only:
                print(f"stale: {mutant}")
                count["stale"] += 1
        total += count
        rows.append(row(module, count))
        print(rows[-1], flush=True)
    print(*rows, row("all", total), sep="\n")
    minutes = (time.monotonic() - began) / 60
    print(f"{datetime.date.today()}, {minutes:.0f} minutes")
    return total


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("modules", nargs="*", help="default: all")
    arguments.add_argument("--show", default="", help="print a function's mutants")
    arguments.add_argument("--only", default="", help="only functions named so")
    args = arguments.parse_args()
    for name in {*args.modules, args.show.partition(".")[0]} - {"", *MODULES}:
        arguments.error(f"no module {name!r}; choose from {', '.join(MODULES)}")
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    total = Counter()
    if args.show:
        found = show(args.show)
    else:
        total = examine_all(args.modules or MODULES, args.only)
        found = sum(total.values())
    if not found:
        arguments.error("no such function has mutants; --show MODULE lists them all")
    return 1 if total["survived"] or total["stale"] else 0


if __name__ == "__main__":
    sys.exit(main())
