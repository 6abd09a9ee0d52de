"""Every function of the matrix, for any shape and any number, within stated bounds."""

import functools
import gc
import math
import os
import signal
import threading
import time
from fractions import Fraction

import llvmlite.binding
import numba
import numpy as np
import pytest
from bounds import (
    DTYPES,
    FINITE,
    LONG,
    Draw,
    check,
    check_exponential,
    draws,
    exp_bound,
    long,
    same_numbers,
    sizes,
)
from hypothesis import given
from hypothesis import strategies as st
from numba.core import event

from microgpt import matrix

rows, columns, few = sizes(40), sizes(37), sizes(5)


def test_a_new_matrix_begins_with_a_cache_line_and_ends_in_its_memory():
    """Chance would give an address that 64 divides in one case of four."""
    assert matrix.LINE == 64
    for shape in ((), (0, 3), (1,), (7,), (3, 5), (8, 8), (2, 3, 5), (16, 4096)):
        for dtype in ("float32", "float64", "int64"):
            x = matrix.column_major(*shape, dtype=dtype)
            assert x.ctypes.data % matrix.LINE == 0
            begin, end = np.lib.array_utils.byte_bounds(x.base)
            assert begin <= x.ctypes.data <= x.ctypes.data + x.nbytes <= end
            assert x.shape == shape and x.dtype == dtype and not x.any()


def test_a_new_matrix_is_column_major_and_zero():
    x = matrix.column_major(3, 2)
    assert x.shape == (3, 2) and x.flags.f_contiguous and x.dtype == "float64"
    assert not x.any() and matrix.column_major(2, 3, 4, dtype="int64").dtype == "int64"


@pytest.mark.parametrize(
    ("x", "expected", "error", "message"),
    [
        ([[1.0]], {}, TypeError, "x is list; expected a NumPy array of float32 or f"),
        (np.zeros((2, 3), "i8"), {}, TypeError, "x is array of int64"),
        (np.zeros((2, 3), "f2", "F"), {}, TypeError, "x is array of float16"),
        (np.zeros((2, 3), ">f8", "F"), {}, TypeError, "x is array of >f8"),
        (np.zeros((2, 3), "f4"), {"dtype": "float64"}, TypeError, "a NumPy.*float64"),
        (np.zeros(3), {}, ValueError, r"x has shape \(3,\); expected \(any, any\)"),
        (np.zeros((2, 3, 1)), {}, ValueError, r"x has shape \(2, 3, 1\)"),
        (np.zeros((2, 3)), {"rows": 3}, ValueError, r"expected \(3, any\)"),
        (np.zeros((2, 3)), {"columns": 2}, ValueError, r"expected \(any, 2\)"),
        (np.zeros((2, 3)), {}, ValueError, r"x of.*not column-major.*asfortranarray"),
        (np.zeros((4, 6), order="F")[::2], {}, ValueError, "not column-major"),
    ],
)
def test_what_is_no_such_matrix_is_refused(x, expected, error, message):
    with pytest.raises(error, match=message):
        matrix.check_matrix("x", x, **expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_matrices_pass(dtype):
    x = np.zeros((2, 3), dtype, order="F")
    x.flags.writeable = False
    for expected in ({}, {"rows": 2}, {"columns": 3}, {"dtype": dtype}):
        matrix.check_matrix("x", x, **expected)


def test_a_size_is_a_whole_number_from_one_on():
    for size in (1, 7, np.int64(3)):
        found = matrix.check_size("n", size)
        assert found == size and type(found) is int
    for bad in (0, -1, True, 2.0, "3", None, np.float64(3)):
        with pytest.raises(ValueError, match=r"n is .*; expected an integer >= 1"):
            matrix.check_size("n", bad)
    assert matrix.check_size("n", 0, least=0) == 0
    for bad in (-1, False, 0.0):
        with pytest.raises(ValueError, match=r"n is .*; expected an integer >= 0"):
            matrix.check_size("n", bad, least=0)


def test_the_cache_has_a_folder_for_every_content(tmp_path, monkeypatch):
    package, home = tmp_path / "package", tmp_path / "home"
    package.mkdir()
    folder = functools.partial(matrix.kernel_cache.__wrapped__, package)
    found = [folder()]
    (package / "a.py").write_text("1")
    found.append(folder())
    (package / "a.py").write_text("2")
    found.append(folder())
    (package / "a.py").rename(package / "b.py")
    found.append(folder())
    monkeypatch.setenv("NUMBA_OPT", "1")
    found.append(folder())
    monkeypatch.setenv("OTHER", "1")
    assert folder() == found[-1] and len(set(found)) == len(found)
    for path in found:
        assert (
            os.path.isdir(path) and len(os.path.basename(path)) == len("kernels-") + 16
        )
        assert os.path.dirname(path) == str(package / "__pycache__")
    monkeypatch.setattr(os, "access", lambda path, mode: "__pycache__" not in str(path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    assert os.path.dirname(folder()) == str(home / "microgpt")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    assert os.path.dirname(folder()) == str(tmp_path / "user" / ".cache" / "microgpt")
    other = tmp_path / "other"
    other.mkdir()
    (other / "__pycache__").write_text("a file in its place")
    assert matrix.kernel_cache.__wrapped__(other).startswith(str(tmp_path / "user"))
    (tmp_path / "user" / ".cache" / "microgpt").rename(tmp_path / "aside")
    (tmp_path / "user" / ".cache" / "microgpt").write_text("a file in its place")
    assert folder() is None


def test_a_user_without_a_home_has_a_cache_where_the_package_is(tmp_path, monkeypatch):
    """And where that cannot be written, none: not a folder named ~ wherever one is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # knows of no home
    folder = matrix.kernel_cache.__wrapped__
    assert folder(tmp_path).startswith(str(tmp_path / "__pycache__"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert folder(tmp_path) is None
    assert os.listdir(tmp_path) == ["__pycache__"]


def test_threads_run_every_share_once():
    seen, own = [], threading.get_ident()
    for count in (1, 2, 5):
        seen.clear()
        matrix.in_threads(lambda i: seen.append((i, threading.get_ident())), count)
        assert sorted(i for i, _ in seen) == list(range(count))
        assert all((ident == own) == (i == 0) for i, ident in seen)
    barrier = threading.Barrier(3, timeout=10)  # all at once, or nobody passes
    matrix.in_threads(lambda i: barrier.wait(), 3)
    for count, broken in ((1, 0), (3, 0), (3, 2)):
        with pytest.raises(ZeroDivisionError):
            matrix.in_threads(lambda i: 1 / (i - broken), count)  # noqa: B023


def test_no_thread_is_left_behind_by_an_error():
    """What the others write to is the caller's again only when they have ended."""
    ended = []

    def run(i):
        if i == 0:
            raise ZeroDivisionError
        time.sleep(0.05)
        ended.append(i)

    with pytest.raises(ZeroDivisionError):
        matrix.in_threads(run, 3)
    assert sorted(ended) == [1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_threads_after_a_fork():
    """The child has none of the threads that wait in its parent."""
    barrier = threading.Barrier(3, timeout=10)
    matrix.in_threads(lambda i: barrier.wait(), 3)
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # who waits for threads that are gone waits for ever
        try:
            matrix.in_threads(lambda i: None, 3)
            os._exit(0)
        finally:
            os._exit(1)  # never back into pytest, which goes on in the parent
    assert os.waitpid(child, 0)[1] == 0


def python(function):
    """The function in Python: a view cannot be handed back by compiled code."""
    return getattr(function, "py_func", function)


@given(few, few, few, st.data())
def test_views_are_slices_without_a_copy(m, n, p, data):
    stack = Draw("float64", "normal", 1)(m, n, p)
    i = data.draw(st.integers(0, p - 1))
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    item, layer, columns = map(python, (matrix.item, matrix.layer, matrix.columns))
    first = np.asfortranarray(stack[:, :, 0])
    for found, expected in (
        (item(stack, i), stack[:, :, i]),
        (layer(stack, i, start, stop), stack[:, start:stop, i]),
        (columns(first, start, stop), first[:, start:stop]),
        (columns(stack, 0, p), stack),
        (item(first, start % n), first[:, start % n]),
        (matrix.part(stack, None, None, None), stack),
        (columns(first[0].copy(), start, stop), first[0, start:stop]),
    ):
        np.testing.assert_array_equal(found, expected)
    assert np.shares_memory(layer(stack, i, 0, n), stack)


@matrix.compiled
def copy_views(stack, i, start, stop, first, second, third):
    matrix.add(matrix.layer(stack, i, start, stop), first)
    matrix.add(matrix.item(stack, i), second)
    matrix.add(matrix.columns(matrix.item(stack, 0), start, stop), third)


@given(few, few, few, st.data())
def test_compiled_views_are_the_same(m, n, p, data):
    stack = Draw("float64", "normal", 1)(m + 1, n + 1, p + 1)
    i = data.draw(st.integers(0, p))
    start = data.draw(st.integers(0, n - 1))
    stop = data.draw(st.integers(start + 2, n + 1))
    expected = stack[:, start:stop, i], stack[:, :, i], stack[:, start:stop, 0]
    found = [np.asfortranarray(np.zeros(x.shape)) for x in expected]
    copy_views(stack, i, start, stop, *found)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.skipif(not numba.config.DISABLE_JIT, reason="compiled code is not patched")
@given(rows, columns)
def test_blocks_lie_inside(m, n):
    """In compiled code nothing checks where a block begins."""
    seen, block = [], matrix.transpose_block

    def watch(a, i, j, out):
        assert 0 <= i <= m - 8 and 0 <= j <= n - 8
        seen.append((i, j))
        block(a, i, j, out)

    a = np.asfortranarray(np.arange(float(m * n)).reshape(m, n))
    out = np.zeros((n, m), order="F")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix, "transpose_block", watch)
        matrix.transpose(a, out)
    assert seen == [(i, j) for j in range(0, n - 7, 8) for i in range(0, m - 7, 8)]
    same_numbers(out, a.T)


@given(draws(), rows, columns)
def test_elementwise(x, m, n):
    """fill, add, scale, transpose, relu: one rounded operation, or none."""
    a, b, factor = x(m, n), x(m, n), x.number()
    filled, total, scaled = (y.copy("F") for y in (a, b, a))
    matrix.fill(filled, factor)
    same_numbers(filled, np.full_like(a, factor))
    with np.errstate(over="ignore", invalid="ignore"):
        matrix.add(a, total)
        same_numbers(total, a + b)
        matrix.scale(scaled, factor)
        same_numbers(scaled, a * factor)
    at, y, dx = x.garbage(n, m), x.garbage(m, n), x.garbage(m, n)
    matrix.transpose(a, at)
    same_numbers(at, a.T)
    matrix.relu(a, y)
    same_numbers(y, np.maximum(a, 0))  # NumPy's maximum keeps nan, too
    matrix.relu_backward(b, a, dx)
    same_numbers(dx, np.where(np.isnan(a), a, np.where(a > 0, b, a.dtype.type(0))))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_goes_through_relu_in_both_directions(dtype):
    x = np.array([[1, np.nan, -2], [0, 3, np.nan]], dtype, order="F")
    dy = np.array([[5, 6, 7], [8, 9, 4]], dtype, order="F")
    y, dx = np.zeros_like(x), np.zeros_like(x)
    matrix.relu(x, y)
    same_numbers(y, np.array([[1, np.nan, 0], [0, 3, np.nan]], dtype))
    matrix.relu_backward(dy, x, dx)
    same_numbers(dx, np.array([[5, np.nan, 0], [0, 9, np.nan]], dtype))


@given(draws(), sizes(85), columns, few, st.booleans())
def test_products(x, m, n, p, transposed):
    """n products and n additions to what `out` held: at most 2 n + 2 operations."""
    a, out = x(m, n), x(m, p)
    b = x(p, n).T if transposed else x(n, p)
    with np.errstate(over="ignore", invalid="ignore"):
        (la, lb, lo), before = long(a, b, out), out.copy("F")
        exact, size = la @ lb, abs(la) @ abs(lb)
        matrix.matmul_add(a, b, out)
        check(out, lo + exact, abs(lo) + size, 2 * n + 2, "matmul_add")
        matrix.matmul(a, b, out)
        check(out, exact, size, 2 * n + 2, "matmul")
        at, workspace = np.asfortranarray(a.T), x.garbage(m, n)
        matrix.matmul_tn(at, b, out, workspace)
        check(out, exact, size, 2 * n + 2, "matmul_tn")
        same_numbers(workspace, a)
        out = before.copy("F")
        matrix.matmul_tn_add(at, b, out, workspace)
        check(out, lo + exact, abs(lo) + size, 2 * n + 2, "matmul_tn_add")


def test_wide_registers_are_noticed():
    told = os.environ.get("NUMBA_CPU_FEATURES")  # as of another processor
    here = llvmlite.binding.get_host_cpu_features().get("avx512f", False)
    assert matrix.WIDE == (here if told is None else "+avx512f" in told)


def test_collections_are_rare_until_the_outermost_compilation_ends():
    rare, usual, paces = matrix.RareCollections(), gc.get_threshold(), []
    for call in (rare.on_start, rare.on_start, rare.on_end, rare.on_end):
        call(None)
        paces.append(gc.get_threshold())
    assert paces == [(50_000, *usual[1:])] * 3 + [usual]
    with event.trigger_event("numba:compile"):  # the package listens
        assert gc.get_threshold() == (50_000, *usual[1:])
    for young in (0, 1, 49_999, 70_000):  # chosen by the caller; 0 is for never
        chosen, expected = (young, 5, 5), (young and max(young, 50_000), 5, 5)
        gc.set_threshold(*chosen)
        try:
            rare.on_start(None)
            assert gc.get_threshold() == expected
            rare.on_end(None)
            assert gc.get_threshold() == chosen
        finally:
            gc.set_threshold(*usual)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_split_of_a_product(dtype):
    """Rows by 64, 16, four and one; sums by eight, by four and by one."""
    for m in (1, 3, 4, 5, 15, 16, 17, 20, 33, 63, 64, 85, 128):
        for n in (1, 3, 4, 7, 8, 9, 12, 15, 16, 17, 20, 25, 33):
            a = np.asfortranarray(np.arange(m * n).reshape(m, n) % 7 - 3, dtype=dtype)
            b = np.asfortranarray(np.arange(2 * n).reshape(n, 2) % 5 - 2, dtype=dtype)
            out = np.ones((m, 2), dtype, order="F")
            matrix.matmul_add(a, b, out)
            same_numbers(out, (a @ b + 1).astype(dtype))  # small integers: exact


@given(draws(), columns)
def test_dot(x, n):
    a, b = x(n), x(n)
    with np.errstate(over="ignore", invalid="ignore"):
        found, (la, lb) = x.dtype.type(matrix.dot(a, b)), long(a, b)
        check(found, la @ lb, abs(la) @ abs(lb), n + 4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.equation("matrix-dot")
def test_dot_is_four_partial_sums(dtype):
    """Number k goes into sum k mod 4; those after the last whole four into sum 0."""
    for n in range(23):
        x, y = np.random.default_rng(n).normal(size=(2, n)).astype(dtype)
        sums = [np.dtype(dtype).type(0)] * 4
        for k in range(n):
            lane = k % 4 if k < n // 4 * 4 else 0
            sums[lane] += x[k] * y[k]
        expected = (sums[0] + sums[1]) + (sums[2] + sums[3])
        assert np.dtype(dtype).type(matrix.dot(x, y)).tobytes() == expected.tobytes(), n


EDGES = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e30, -1e30, 1e-40, 0.5]


@given(draws(FINITE), sizes(99), st.floats(0.5, 200))
def test_exponential(x, n, spread):
    values = x(n) * x.dtype.type(spread if x.kind == "normal" else 1)
    values[0] = EDGES[n % len(EDGES)]
    check_exponential(values, x.dtype)


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 24), ("float64", 53)])
def test_exponential_at_its_borders(dtype, bits):
    """Either side of the borders of the range, and the ends of every power of two."""
    kind = np.finfo(dtype)
    ends = [kind.minexp + 0.01, -1.5, -0.5, 0.49, 0.51, 1.5, kind.maxexp - 0.51]
    x = np.array([[z * math.log(2) for z in ends]], dtype).T.copy("F")
    y = x.copy("F")
    matrix.exponential(y)
    exact = np.exp(long(x)[0])
    check(y, exact, exact * exp_bound(long(x)[0]), 1)
    assert (abs(y / exact - 1) < (2 * abs(x) + 6) * 2.0**-bits).all()
    beyond = [
        kind.minexp - 0.51,
        kind.minexp - 9.0,
        kind.maxexp - 0.49,
        kind.maxexp + 9.0,
    ]
    z = np.array([[e * math.log(2) for e in beyond]], dtype).T.copy("F")
    matrix.exponential(z)
    assert z.ravel().tolist() == [0.0, 0.0, np.inf, np.inf]


@pytest.mark.parametrize(("bits", "low", "high"), [(32, -127, 128), (64, -1023, 1024)])
@pytest.mark.equation("matrix-exp")
def test_powers_of_two_are_exact(bits, low, high):
    """Whole exponents; zero and infinity, and on which side of the borders they lie."""
    number, power = getattr(np, f"float{bits}"), getattr(matrix, f"exp2_float{bits}")
    for n in (low + 1, low + 2, -1, 0, 1, high - 1):
        assert power(number(n)) == 2.0**n
    with np.errstate(over="ignore"):
        assert power(number(low)) == power(number(low + 0.5)) == 0
        assert power(number(high - 0.4)) == power(number(high)) == np.inf
    assert 0 < power(number(low + 0.6)) < power(number(high - 0.5)) < np.inf
    with np.errstate(invalid="ignore"):
        assert np.isnan(power(number(np.nan)))


@numba.njit
def fused(x, y, z):
    return matrix.fma(x, y, z)


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
@given(draws(["normal", "integers", "subnormal"]), rows)
@pytest.mark.equation("matrix-fma")
def test_a_fused_multiply_add_is_rounded_once(x, n):
    """Off by at most half a unit in the last place, where two roundings may be more."""
    for numbers in zip(x(n), x(n), x(n), strict=True):
        a, b, c = (Fraction(float(number)) for number in numbers)
        found = fused(*numbers)
        place = np.spacing(x.dtype.type(abs(found)))
        error = abs(Fraction(float(found)) - (a * b + c))
        assert error <= Fraction(float(place)) / 2


def test_without_the_compiler_it_is_a_product_and_a_sum():
    assert matrix.fma(2.0, 3.0, 4.0) == 10.0


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 32), ("float64", 64)])
@pytest.mark.equation("matrix-exp")
def test_exponentials_of_negative_numbers(dtype, bits):
    """The short form gives what the long one gives."""
    short, long_one = (
        getattr(matrix, f"{name}_float{bits}") for name in ("exp_negative", "exp")
    )
    lowest = (np.finfo(dtype).minexp - 1) * math.log(2)
    x = np.append(np.linspace(1.1 * lowest, 0, 1001), [-0.0, -1e30, -np.inf, np.nan])
    with np.errstate(all="ignore"):
        for number in x.astype(dtype):
            same_numbers(np.array(short(number)), np.array(long_one(number)))


@pytest.mark.parametrize("degree", [0, 1, 6])
def test_taylor_has_the_highest_power_first(degree):
    found = matrix.taylor(degree, np.float32)
    assert len(found) == degree + 1 and found[-1] == 1
    assert {type(x) for x in found} == {np.float32}
    if degree:
        assert found[-2] == np.float32(math.log(2))
        assert np.polyval(matrix.taylor(16, float), 0.5) == pytest.approx(2**0.5)


@given(draws(), rows, few, st.floats(0, 300))
def test_softmax(x, m, n, spread):
    """Errors: u |x - max| from the difference, (2 |x - max| + 6) u from exp, m + 1 u.

    Scores of 1e30 overflow nowhere; a nan makes its whole column nan, and so does inf.
    """
    a = x(m, n) * x.dtype.type(spread if x.kind == "normal" else 1)
    y, below = x.garbage(m, n), x.garbage(m, n)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        matrix.softmax(a, y)
        matrix.below_maximum(a, below)
        z = long(a)[0]
        z = z - z.max(axis=0)
        e = np.exp(z)
        exact = e / e.sum(axis=0)
        far = np.minimum(abs(z), 12000.0)  # further away all is zero
        kind = np.finfo(x.dtype)
        bound = (2 * far + 8 + m) * LONG(kind.eps) * exact + 2 * kind.smallest_normal
        close = abs(y - exact) <= bound
    bad = np.isnan(exact)
    assert np.isnan(y[bad]).all() and close[~bad].all()
    good = ~np.isnan(a) & ~bad
    with np.errstate(over="ignore", invalid="ignore"):
        same_numbers(below[good], (a - a.max(axis=0))[good])


@given(draws(), rows, few)
def test_divide_by_sum(x, m, n):
    y = np.asfortranarray(abs(x(m, n)) + x.dtype.type(1))
    with np.errstate(over="ignore", invalid="ignore"):
        z = long(y)[0]
        exact = z / z.sum(axis=0)
        matrix.divide_by_sum(y)
        check(y, exact, exact, m + 2)


@given(draws(), rows, few)
def test_softmax_backward(x, m, n):
    """dx = y (dy - sum): m products, their sum, a difference, a product."""
    dy, y, dx = x(m, n), np.asfortranarray(x.positive(m, n) / m), x.garbage(m, n)
    with np.errstate(over="ignore", invalid="ignore"):
        matrix.softmax_backward(dy, y, dx)
        ldy, ly = long(dy, y)
        exact = ly * (ldy - (ly * ldy).sum(axis=0))
        size = ly * (abs(ldy) + (ly * abs(ldy)).sum(axis=0))
        check(dx, exact, size, m + 6)


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_compiled_code_refuses_views_of_rows():
    """`part` needs whole columns: a view that leaves rows out has no such type."""
    f = numba.njit(lambda x: matrix.part(x, 0, None, None).sum())
    with pytest.raises(numba.TypingError):
        f(np.zeros((4, 6), order="F")[::2])
