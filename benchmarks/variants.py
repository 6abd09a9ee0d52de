"""The book with one of its ideas taken away, by patching what its modules import.

A variant must be applied before numba, NumPy or the package is imported.
"""

import hashlib
import os
from pathlib import Path

NAME = "NUMBA_BENCHMARK_VARIANT"  # numba ignores it; `kernel_cache` tells by it
STAMP = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
HASWELL = "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse4.1,+sse4.2"
AVX2 = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": HASWELL,
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}


def compile_with(but=(), **changes) -> None:
    """Have numba.njit use other options than the book's, but for some functions.

    Those are told that each of the options is off, or they would have their caller's.
    """
    import numba

    original, off = numba.njit, dict.fromkeys(changes, False)

    def njit(*function, **options):
        if function:  # numba's own
            return original(*function, **options)

        def decorate(function):
            chosen = off if function.__name__ in but else changes
            return original(**options | chosen)(function)

        return decorate

    numba.njit = njit


def aliasing() -> None:
    """No promise that a kernel's arrays do not overlap."""
    compile_with(noalias=False)


def counting() -> None:
    """References to arrays are counted, so that kernels may allocate."""
    compile_with(_nrt=True)


def loose_sums() -> None:
    """Sums in any order, products fused with sums, reciprocals for divisions.

    Exponentials stay as they are: in another order, z + ROUND32 - ROUND32 would be z.
    """
    fastmath = {"contract", "reassoc", "arcp", "nsz", "afn"}
    compile_with(("exponential", "exponential_below"), fastmath=fastmath)


def no_slp() -> None:
    """Vectors only from loops, not from neighbouring lines."""
    os.environ["NUMBA_SLP_VECTORIZE"] = "0"


def without_option(start: str) -> None:
    """LLVM's default instead of an option that the book sets."""
    import llvmlite.binding

    original = llvmlite.binding.set_option

    def set_option(name, option):
        if not option.startswith(start):
            original(name, option)

    llvmlite.binding.set_option = set_option


def long_loops() -> None:
    """Loops are copied for long runs as well."""
    without_option("-unroll-runtime")


def separate_kernels() -> None:
    """Kernels are put into their callers only as far as LLVM would by itself."""
    without_option("-inline-threshold")


def library_exp() -> None:
    """The C library's exp, a call for each number."""
    import math

    import numba

    import microgpt.flash
    import microgpt.matrix

    @numba.njit(inline="always", error_model="numpy", _nrt=False)
    def exp(x):
        return math.exp(x)

    for module, name in (
        (microgpt.matrix, "exp_float32"),
        (microgpt.flash, "exp_negative_float32"),
    ):
        assert hasattr(module, name)
        setattr(module, name, exp)


def two_roundings() -> None:
    """A product and a sum in place of each fused multiply-add."""
    import numba

    import microgpt.matrix

    @numba.njit(inline="always", error_model="numpy", _nrt=False)
    def fma(x, y, z):
        return x * y + z

    assert hasattr(microgpt.matrix, "fma")
    microgpt.matrix.fma = fma


def run_time_sizes() -> None:
    """The sizes of the model are not part of the types of its arrays."""
    from microgpt import model, training

    original = training.training_state

    def training_state(gpt, batch_size=1, threads=1):
        state = original(gpt, batch_size, threads)
        assert batch_size == threads == 1
        own = model.parameter_shapes(gpt.config)
        a, w = (
            reverse(model.allocate(shapes(gpt.config), gpt.dtype))
            for shapes in (model.activation_shapes, model.workspace_shapes)
        )
        p, g = (
            reverse(model.views(flat, own))
            for flat in (state.weights, state.gradients[0])
        )
        return state._replace(p=p, g=(g,), a=[a], w=[w])

    training.training_state = training_state


def reverse(arrays):
    """Arrays with their axes in reverse, as the fields of a record are."""
    if hasattr(arrays, "_fields"):
        return type(arrays)(*map(reverse, arrays))
    return arrays.T


def low_panels() -> None:
    """Products of tall matrices in panels of 16 rows in place of 64."""
    import microgpt.matrix

    assert isinstance(microgpt.matrix.WIDE, bool)
    microgpt.matrix.WIDE = False


def only_avx2() -> None:
    """Vectors of 32 bytes, as on a processor without AVX-512."""
    os.environ.update(AVX2)


VARIANTS = {
    "sizes": (run_time_sizes, "sizes known only when it runs"),
    "aliasing": (aliasing, "no promise that arrays do not overlap"),
    "exp": (library_exp, "the C library's exp"),
    "fma": (two_roundings, "products and sums not fused"),
    "panels": (low_panels, "no panels of 64 rows"),
    "calls": (separate_kernels, "LLVM alone decides which kernels it inlines"),
    "long-loops": (long_loops, "loops copied for long runs"),
    "slp": (no_slp, "vectors only from loops"),
    "counting": (counting, "references to arrays are counted"),
    "loose": (loose_sums, "sums in any order, all multiply-adds fused"),
    "avx2": (only_avx2, "vectors of 32 bytes"),
}


def apply(name: str | None) -> None:
    """Patch this process; KeyError for a name that is not in VARIANTS."""
    if name is not None:
        os.environ[NAME] = f"{name}-{STAMP}"
        VARIANTS[name][0]()
