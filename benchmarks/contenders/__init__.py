"""Who takes part: a name, what it is, the modules it needs, where it is written."""

import dataclasses
import importlib
import importlib.util
import shutil

from ..variants import VARIANTS

SUFFIX = {"f32": "float32", "f64": "float64"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A contender: module and class, the packages it needs, and words for a table."""

    module: str
    cls: str
    words: str
    needs: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("f32", "f64")
    variant: str | None = None  # of the book, see `variants`


ENTRIES = {
    "book": Entry("book", "Book", "the book, compiled by numba"),
    "numpy_plain": Entry("numpy_plain", "Plain", "NumPy, an operation a line"),
    "numpy_tuned": Entry("numpy_tuned", "Tuned", "NumPy, optimised by hand"),
    "torch_eager": Entry("torch_model", "Eager", "PyTorch, eager", ("torch",)),
    "torch_compiled": Entry(
        "torch_model", "Compiled", "PyTorch, whole step compiled", ("torch", "c++")
    ),
    "jax_step": Entry("jax_model", "Step", "JAX, jitted step", ("jax",)),
    "jax_scan": Entry("jax_model", "Scan", "JAX, whole loop in one scan", ("jax",)),
    "jax_scan_plain": Entry(
        "jax_model", "PlainScan", "JAX, the scan written plainly", ("jax",)
    ),
    "scalars": Entry(
        "scalars", "Scalars", "pure Python, a scalar at a time", (), ("f64",)
    ),
}
NAMES = [f"{kind}_{dtype}" for kind, e in ENTRIES.items() for dtype in e.dtypes]

IDEAS = {  # the book with one of its ideas taken away; not in the ordinary races
    f"book-{key}": Entry("book", "Book", words, dtypes=("f32",), variant=key)
    for key, (_, words) in VARIANTS.items()
}


def entry(name: str) -> tuple[Entry, str]:
    """The entry of a name and its dtype; ValueError, in one line, for another name."""
    kind, _, suffix = name.rpartition("_")
    found = (ENTRIES | IDEAS).get(kind)
    if found is None or suffix not in found.dtypes:
        raise ValueError(f"no contender {name!r}; there are: {', '.join(NAMES)}")
    return found, SUFFIX[suffix]


def missing(name: str) -> list[str]:
    """What the contender needs and this environment does not have."""
    needs = entry(name)[0].needs
    return [need for need in needs if not available(need)]


def available(need: str) -> bool:
    """Whether a module can be found, or, for "c++", a compiler."""
    if need == "c++":
        return any(shutil.which(name) for name in ("c++", "g++", "clang++"))
    return importlib.util.find_spec(need) is not None


def load(name: str):
    """The class behind a name. Its packages are imported now and not before."""
    found = entry(name)[0]
    module = importlib.import_module(f"benchmarks.contenders.{found.module}")
    return getattr(module, found.cls)
