"""The compiled loops, bit by bit: promises, order of sums, special values, padding."""

import importlib
import itertools
import math
from fractions import Fraction

import numba
import numpy as np
import pytest
from bounds import DTYPES, Draw, check_exponential
from hypothesis import given, settings
from hypothesis import strategies as st

import microgpt
from microgpt import flash
from microgpt.matrix import exponential, fma, matmul, matmul_add, transpose

pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="nothing is compiled, so nothing to compare"
)
MODULES = ["matrix", "rmsnorm", "hyper_connections", "attention", "flash", "model"]
MODULES += ["training", "sampling"]
TILES = [1, 3, 4, 7, 16, 64]


def leaf_kernels():
    """Every function of the package that was compiled with the promise `noalias`."""
    found = {}
    for module in MODULES:
        for x in vars(importlib.import_module(f"microgpt.{module}")).values():
            if getattr(x, "targetoptions", {}).get("noalias"):
                home = x.py_func.__module__.removeprefix("microgpt.")
                found.setdefault(f"{home}.{x.__name__}", {})[x] = None
    return found


class Inputs(Draw):
    """Always the same normal numbers, token ids, and arguments of the tiled kernels."""

    def __init__(self, dtype):
        super().__init__(dtype, "normal", 5)

    def ids(self, count, below):
        return self.rng.integers(0, below, count)

    def attention(self, B, tile, G, N):
        """Arguments of the tiled kernels for N positions of 2 G heads with d = 3."""
        C, H, d = 6 * G, 2 * G, 3
        q, k, v = (self(C, N) for _ in range(3))
        o, m, l = flash.flash_attention(q, k, v, H, tile)
        w = flash.flash_workspace(d, tile, H, N, self.dtype)
        return self(C, N), q, k, v, o, m, l, w


def matmul_rows(x, m, n, p):
    return x(m + 64, n), x(n, p), x(m + 64, p), m


def flash_forward(x, m, n, p):
    _, q, k, v, o, maximum, total, w = x.attention(16, p, 2, n)
    return q, k, v, 0, 4, True, o, maximum, total, w


def flash_backward(x, m, n, p):
    do, q, k, v, o, maximum, total, w = x.attention(16, p, 2, n)
    gradients = (np.zeros_like(q) for _ in range(3))
    return do, q, k, v, o, maximum, total, 0, 4, True, *gradients, w


def statistics(x, m, n, p):
    C, H, N = 3 * p, p, n + 2
    return (
        x(C, N), x(C, N), x(H, N), x.positive(H, N), 0, 1, min(m, n),
        x(m, p), x(m, p), x(m, p),
    )  # fmt: skip


def two_ends(n):
    return np.array([n // 2, n])


def adam(x, m, n, p):
    a, b, c, d = (x(m * n).copy() for _ in range(4))
    return a, b, c, abs(d), p, 0.01, 0.85, 0.99, 1e-8


# What to call each kernel with; m, n, p are sizes. One entry for every kernel there is.
ARGUMENTS = {
    "matrix.fill": lambda x, m, n, p: (x(m, n), x.number()),
    "matrix.add": lambda x, m, n, p: (x(m, n), x(m, n)),
    "matrix.scale": lambda x, m, n, p: (x(m, n), x.number()),
    "matrix.transpose": lambda x, m, n, p: (x(m, n), x(n, m)),
    "matrix.matmul_rows": matmul_rows,
    "matrix.matmul_add": lambda x, m, n, p: (x(m, n), x(n, p), x(m, p)),
    "matrix.exponential": lambda x, m, n, p: (x(m, n),),
    "matrix.below_maximum": lambda x, m, n, p: (x(m, n), x(m, n)),
    "matrix.divide_by_sum": lambda x, m, n, p: (x.positive(m, n),),
    "matrix.relu": lambda x, m, n, p: (x(m, n), x(m, n)),
    "matrix.relu_backward": lambda x, m, n, p: (x(m, n), x(m, n), x(m, n)),
    "matrix.softmax_backward": lambda x, m, n, p: (x(m, n), x(m, n), x(m, n)),
    "rmsnorm.inverse_size": lambda x, m, n, p: (x(m),),
    "rmsnorm.rmsnorm": lambda x, m, n, p: (x(m, n), x(m, n), x(n)),
    "rmsnorm.rmsnorm_backward": lambda x, m, n, p: (x(m, n), x(m, n), x(n), x(m, n)),
    "hyper_connections.birkhoff": lambda x, m, n, p: (x.number(), x(2, 2)),
    "hyper_connections.expand": lambda x, m, n, p: (x(m, n), x(m, p, n)),
    "hyper_connections.mix": lambda x, m, n, p: (x(p, p), x(m, p, n), x(m, p, n)),
    "hyper_connections.aggregate": lambda x, m, n, p: (x(p), x(m, p, n), x(m, n)),
    "hyper_connections.distribute": lambda x, m, n, p: (
        x(p), x(m, p, n), x(m, n), x(m, p, n),
    ),
    "hyper_connections.aggregate_backward": lambda x, m, n, p: (
        x(m, n), x(p), x(m, p, n), x(m, p, n), x(p),
    ),
    "hyper_connections.distribute_backward": lambda x, m, n, p: (
        x(m, p, n), x(p), x(m, n), x(m, p, n), x(m, n), x(p),
    ),
    "hyper_connections.mix_backward": lambda x, m, n, p: (
        x(m, p, n), x(p, p), x(m, p, n), x(m, p, n), x(p, p),
    ),
    "hyper_connections.birkhoff_backward": lambda x, m, n, p: (x(2, 2), x(2, 2)),
    "hyper_connections.expand_backward": lambda x, m, n, p: (x(m, p, n), x(m, n)),
    "attention.causal_mask": lambda x, m, n, p: (x(n, n),),
    "flash.load_rows": lambda x, m, n, p: (
        x(6 * p, n + 2), 1, 1, min(m, n), x.number(), x(m, 3, p),
    ),
    "flash.store_rows": lambda x, m, n, p: (
        x(m, 3, p), 1, 1, min(m, n), x.number(), x(6 * p, n + 2),
    ),
    "flash.load_columns": lambda x, m, n, p: (
        x(6 * p, n + 2), 1, 1, min(m, n), x.number(), x(3, m, p),
    ),
    "flash.store_columns": lambda x, m, n, p: (
        x(3, m, p), 1, 1, min(m, n), x(6 * p, n + 2),
    ),
    "flash.fill_stack": lambda x, m, n, p: (x(m, n, p), x.number()),
    "flash.mask_tile": lambda x, m, n, p: (x(m, n, p), m - 2, n, 4, 2),
    "flash.running_maximum": lambda x, m, n, p: (x(m, n, p), n, x(m, p), x(m, p)),
    "flash.exponential_below": lambda x, m, n, p: (
        x(16, n, p), min(m, 16), n, x(16, p),
    ),
    "flash.running_sum": lambda x, m, n, p: (x(m, n, p), n, x(m, p), x(m, p)),
    "flash.scale_rows": lambda x, m, n, p: (x(m, n, p), n, x(m, p)),
    "flash.reciprocal": lambda x, m, n, p: (x.positive(m, n), x(m, n)),
    "flash.store_statistics": lambda x, m, n, p: (
        x(m, p), x(m, p), 1, 1, min(m, n), x(p + 1, n + 2), x(p + 1, n + 2),
    ),
    "flash.flash_forward": flash_forward,
    "flash.load_statistics": statistics,
    "flash.score_gradient": lambda x, m, n, p: (
        x(16, n, p), min(m, 16), n, x(16, p), x(16, p), x(16, n, p),
    ),
    "flash.flash_backward": flash_backward,
    "model.embed": lambda x, m, n, p: (
        x.ids(n, p), two_ends(n), 0, x(m, p), x(m, n), x(m, n),
    ),
    "model.position_weights": lambda x, m, n, p: (two_ends(n), 2, x(n)),
    "model.target_sum": lambda x, m, n, p: (x(m, n), x.ids(n, m), x(n)),
    "model.subtract_targets": lambda x, m, n, p: (x.positive(m, n), x.ids(n, m), x(n)),
    "model.embed_backward": lambda x, m, n, p: (
        x(m, n), x.ids(n, p), two_ends(n), x(m, p), x(m, n),
    ),
    "training.adam": adam,
    "training.add_to": lambda x, m, n, p: (x(m), x(m)),
    "training.linear_schedule": lambda x, m, n, p: (0.01, m, m + n),
    "sampling.embed_lanes": lambda x, m, n, p: (
        x.ids(n, p), 1, x(m, p), x(m, n), x(m, n),
    ),
    "sampling.score_lanes": lambda x, m, n, p: (
        x(m, 3 * p), x(m, 3 * p, n), n, x(m, n, p),
    ),
    "sampling.combine_lanes": lambda x, m, n, p: (
        x(m, n, p), x(m, 3 * p, n), n, x(m, p), x(m, 3 * p),
    ),
    "sampling.all_finite": lambda x, m, n, p: (x(m, n),),
    "sampling.end_of_lanes": lambda x, m, n, p: (
        x.ids(m, p), 1, p - 1, np.asfortranarray(x.ids((m, n), p)),
    ),
    "sampling.over_temperature": lambda x, m, n, p: (
        x(m, n), 0.7, np.zeros((m, n), order="F"),
    ),
    "sampling.draw_lanes": lambda x, m, n, p: (
        x.positive(m, n).astype(float), x.rng.random(n), x.ids(n, m),
    ),
}  # fmt: skip


def bits(arguments, result):
    """Every byte of the arrays, those in tuples too, and of the result."""
    content = b"" if result is None else np.asarray(result).tobytes()
    for x in arguments:
        content += bits(x, None) if isinstance(x, tuple) else np.asarray(x).tobytes()
    return content


def test_every_kernel_has_its_arguments():
    assert set(leaf_kernels()) == set(ARGUMENTS)


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_promises_and_switches_change_no_bit(name, dtype, monkeypatch):
    """The promise `noalias` and the SLP vectoriser make code faster, not different.

    First comes a run that checks every index: no kernel reaches past its arrays.
    """
    monkeypatch.setattr(numba.config, "SLP_VECTORIZE", 0)
    for kernel in leaf_kernels()[name]:
        strict = numba.njit(error_model="numpy", boundscheck=True)(kernel.py_func)
        for m, n, p in ((7, 5, 3), (37, 11, 2), (19, 35, 5)):
            inputs = (Inputs(dtype), Inputs(dtype))
            found, expected = (ARGUMENTS[name](x, m, n, p) for x in inputs)
            result = strict(*expected)
            assert bits(found, kernel(*found)) == bits(expected, result), (m, n, p)


@numba.njit
def triple_loop(a, b, out):
    """out += a b, one product after another: the order that `matmul_add` promises."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            for k in range(a.shape[1]):
                out[i, j] = fma(a[i, k], b[k, j], out[i, j])


def exact_loop(a, b, out):
    """The same with fractions, each sum rounded once."""
    for i, j, k in np.ndindex(*out.shape, a.shape[1]):
        x, y, z = (Fraction(float(n)) for n in (a[i, k], b[k, j], out[i, j]))
        out[i, j] = float(x * y + z)


@pytest.mark.parametrize("transposed", [False, True], ids=["columns", "view"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.equation("matrix-matmul")
def test_products_keep_the_order_of_their_sums(dtype, transposed):
    """Any small size, and rows that fill the panels of 64, or do not quite."""
    numbers = np.random.default_rng(1).normal(size=(3, 149 * 40)).astype(dtype)

    def matrix(which, rows, columns):
        return numbers[which, : rows * columns].reshape(rows, columns, order="F")

    for m in (*range(1, 41), 63, 64, 85, 149):
        for n in range(1, 41):
            p = (7 * m + 3 * n) % 40 + 1
            a = matrix(0, m, n)
            b = matrix(1, p, n).T if transposed else matrix(1, n, p)
            out, expected = matrix(2, m, p).copy("F"), matrix(2, m, p).copy("F")
            matmul_add(a, b, out)
            triple_loop(a, b, expected)
            assert out.tobytes() == expected.tobytes(), (m, n, p)
            expected[:] = 0.0
            matmul(a, b, out)
            triple_loop(a, b, expected)
            assert out.tobytes() == expected.tobytes(), (m, n, p)
    if not transposed:  # and the triple loop itself rounds once
        x, y = matrix(0, 5, 7), matrix(1, 7, 3)
        compiled, exact = (np.zeros((5, 3), dtype) for _ in range(2))
        triple_loop(x, y, compiled)
        exact_loop(x, y, exact)
        assert compiled.tobytes() == exact.tobytes()


def test_transpose_refuses_what_its_blocks_would_spoil():
    out = np.zeros((16, 16), order="F")
    with pytest.raises(numba.TypingError):
        transpose(np.zeros((32, 16), order="F")[::2], out)
    with pytest.raises(numba.TypingError):
        transpose(np.zeros((16, 16), "float32", order="F"), out)


@pytest.mark.parametrize(("dtype", "width"), [("float32", 32), ("float64", 64)])
@pytest.mark.equation("matrix-exp", "matrix-exp-error")
def test_exponential_of_anything(dtype, width):
    kind = np.finfo(dtype)
    edges = [kind.minexp * math.log(2), kind.maxexp * math.log(2)]
    edges += [0.0, -0.0, 1.0, kind.tiny, -kind.tiny, kind.smallest_subnormal]
    edges += [kind.max, kind.min, np.inf, -np.inf, np.nan, 0.5 * math.log(2)]
    check_exponential(edges, dtype)
    y = np.array([[0.0, -0.0, np.inf, -np.inf, kind.max, kind.min]], dtype).T.copy("F")
    exponential(y)
    assert y.ravel().tolist() == [1.0, 1.0, np.inf, 0.0, np.inf, 0.0]
    low, high = 1.01 * edges[0], 1.01 * edges[1]
    check_exponential(np.linspace(low, high, 300_001), dtype)
    check_exponential(np.linspace(-2, 2, 300_001), dtype)

    anything = st.floats(width=width)
    ordinary = st.floats(math.floor(low), math.ceil(high), width=width)
    numbers = st.lists(anything | ordinary, min_size=1, max_size=40)

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(numbers)
    def check(values):
        check_exponential(values, dtype)

    check()


def attention_arrays(C, N, dtype, count=4):
    draws = np.random.default_rng(C * N).normal(0, 1.5, (count, C, N)).astype(dtype)
    return [np.asfortranarray(x) for x in draws]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tile", TILES)
@pytest.mark.equation("flash-forward", "flash-backward")
def test_every_tile_gives_the_naive_result(tile, dtype, causal):
    C, n_head, N = 15, 3, 71
    close = {"rtol": 1e-4, "atol": 2e-5} if dtype == "float32" else {"rtol": 1e-10}
    close = {"atol": 1e-12} | close
    q, k, v, do = attention_arrays(C, N, dtype)
    naive, p = microgpt.naive_attention(q, k, v, n_head, causal)
    expected = microgpt.naive_attention_backward(do, q, k, v, p, n_head)
    o, m, l = microgpt.flash_attention(q, k, v, n_head, tile, causal)
    np.testing.assert_allclose(o, naive, **close)
    found = microgpt.flash_attention_backward(
        do, q, k, v, o, m, l, n_head, tile, causal
    )
    for name, a, b in zip("qkv", found, expected, strict=True):
        np.testing.assert_allclose(a, b, **close, err_msg=f"d{name}")


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tile", TILES)
def test_nan_and_inf_stay_visible(tile, dtype, special):
    """A bad number reaches every query that sees it, and no head that does not."""
    C, n_head, N, d = 15, 3, 71, 5
    close, head = {"rtol": 1e-3, "atol": 1e-4}, slice(d, 2 * d)
    for which, position in itertools.product(range(3), (0, 37, 70)):
        inputs = attention_arrays(C, N, dtype, 3)
        clean = microgpt.flash_attention(*inputs, n_head, tile)[0]
        inputs[which][d + 2, position] = special  # a feature of head 1
        with np.errstate(invalid="ignore"):
            naive = microgpt.naive_attention(*inputs, n_head)[0]
        o = microgpt.flash_attention(*inputs, n_head, tile)[0]
        others = np.delete(np.arange(C), head)
        np.testing.assert_array_equal(o[others], clean[others])
        # only the query itself, or all queries that see the key or the value
        seen = np.arange(N) == position if which == 0 else np.arange(N) >= position
        if which == 2:  # a masked weight of 0 times nan is nan, so others may be, too
            assert not np.isfinite(o[d + 2, seen]).any()
        else:
            np.testing.assert_allclose(o[head, ~seen], clean[head, ~seen], **close)
        if np.isnan(special) and which < 2:
            assert np.isnan(o[head, seen]).all()
        found, expected = o[head, seen], naive[head, seen]
        finite = np.isfinite(found)
        assert not finite[~np.isfinite(expected)].any()
        np.testing.assert_allclose(found[finite], expected[finite], **close)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tile", TILES)
def test_threads_change_no_bit_of_attention(tile, dtype):
    C, n_head, N = 15, 3, 71
    do, q, k, v = attention_arrays(C, N, dtype)
    results = []
    for threads in (1, 2, 3, 7):
        found = microgpt.flash_attention(q, k, v, n_head, tile, threads=threads)
        found += microgpt.flash_attention_backward(
            do, q, k, v, *found, n_head, tile, threads=threads
        )
        results.append([x.tobytes() for x in found])
    assert all(result == results[0] for result in results)
    for threads in (0, 1.5, True):
        with pytest.raises(ValueError, match="threads"):
            microgpt.flash_attention(q, k, v, n_head, tile, threads=threads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tile", TILES)
def test_nothing_stale_in_a_workspace(tile, dtype):
    """What an earlier call left behind, nan above all, does not reach the next one."""
    C, n_head, N, d = 15, 3, 71, 5

    def run(n, inputs, w):
        arrays = [np.asfortranarray(x[:, :n]) for x in inputs]
        do, q, k, v = arrays
        o, dq, dk, dv = (np.full_like(q, np.nan) for _ in range(4))
        m, l = (np.full((n_head, n), np.nan, dtype, order="F") for _ in range(2))
        flash.flash_forward(q, k, v, 0, n_head, True, o, m, l, w)
        flash.flash_backward(do, q, k, v, o, m, l, 0, n_head, True, dq, dk, dv, w)
        return o, m, l, dq, dk, dv

    inputs = attention_arrays(C, N, dtype)
    spoilt = [np.full_like(x, np.nan) for x in inputs]
    used = flash.flash_workspace(d, tile, n_head, N, dtype)
    for n in (N, 7, 18, 35):
        with np.errstate(invalid="ignore"):
            run(N, spoilt, used)
        for x in used[:: 1 + n % 2]:  # once all arrays, once those that nan has missed
            x.fill(np.nan)
        found = run(n, inputs, used)
        fresh = run(n, inputs, flash.flash_workspace(d, tile, n_head, N, dtype))
        for x, y in zip(found, fresh, strict=True):
            assert np.isfinite(x).all()
            assert x.tobytes() == y.tobytes()
